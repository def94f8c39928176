"""Configs: read from files and command lines, checked, and turned into programs."""
