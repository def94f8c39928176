"""Sweeps: many points with many seeds, trained piece by piece."""
