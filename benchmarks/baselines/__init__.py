"""What this project is compared with: other ways to write the same agent, each plain and well written."""
