"""Figures, films and HTML reports of runs, sweeps and searches."""
