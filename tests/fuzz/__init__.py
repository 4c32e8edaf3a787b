"""Fuzzing of our own: `python -m tests.fuzz --help`. Not a test: a command with a time budget that looks for new bugs."""
