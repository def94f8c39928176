"""Other implementations of the same agent, for comparison: each plain and well written."""
