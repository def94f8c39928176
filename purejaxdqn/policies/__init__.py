"""Trained policies: save and load them, play episodes with them, and export them to other formats."""
