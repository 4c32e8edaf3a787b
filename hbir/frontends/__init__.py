"""Readers of other people's model formats. Each turns a file into a `Module` of float operations, or says why it cannot."""
