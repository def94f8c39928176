"""Other implementations of the same agent, for comparison. Each is plain and well written."""
