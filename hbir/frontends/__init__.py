"""Readers of other model formats. Each turns a file into a `Module` of float operations, or says why it cannot."""
