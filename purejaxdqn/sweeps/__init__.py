"""Sweeps: many points and seeds, trained piece by piece."""
