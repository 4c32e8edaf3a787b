"""Tasks and addresses become a program and its constants: `encode(schedule, addresses) -> (Program, constants)`."""

from backends.nash.encode.program import encode

__all__ = ["encode"]
