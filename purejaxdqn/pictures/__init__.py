"""Pictures, films and reports."""
