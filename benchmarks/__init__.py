"""Benchmarks: each script answers one question; see README.md beside them."""
