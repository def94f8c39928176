"""Trained policies: stored, loaded, played and exported."""
