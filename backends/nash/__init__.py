"""The Nash target: from a quantized module to a binary, and the simulator that runs the binary.

Data flows left to right: `lower` (units), `tile`, `schedule`, `allocate`, `encode`, `isa` (instructions, their
assembler and verifier), `hbm` (the container), `simulator` (numbers and cycles), `perf` (reports). The machine, its
instruction set and its container are this project's own open design: only the shape of the family is public, and no
file written here runs on a board.
"""
