"""Training one population of runs: its program, driver, directory, checkpoints and metrics."""
