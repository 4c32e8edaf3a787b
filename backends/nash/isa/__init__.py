"""The instruction set: records, opcodes, programs, their text, their verifier and the cost of each instruction."""

from __future__ import annotations

from backends.nash.isa.assembly import assemble, disassemble
from backends.nash.isa.cycles import instruction_cycles
from backends.nash.isa.opcodes import BY_NAME, OPCODES, Opcode, Operand, Param
from backends.nash.isa.program import Decoded, Event, Program, ProgramBuilder, accesses
from backends.nash.isa.records import DDR, DTYPES, L1M, L2M, SPACES, UNITS, View, dtype_name, queue_name, queue_of
from backends.nash.isa.reference import reference_page
from backends.nash.isa.verify import Memories, verify_program

__all__ = [
    "BY_NAME",
    "DDR",
    "DTYPES",
    "L1M",
    "L2M",
    "OPCODES",
    "SPACES",
    "UNITS",
    "Decoded",
    "Event",
    "Memories",
    "Opcode",
    "Operand",
    "Param",
    "Program",
    "ProgramBuilder",
    "View",
    "accesses",
    "assemble",
    "disassemble",
    "dtype_name",
    "instruction_cycles",
    "queue_name",
    "queue_of",
    "reference_page",
    "verify_program",
]
