"""One population of runs: training, its directory, checkpoints and metrics."""
