"""The reference page of the instruction set, written from the table of opcodes and from the record layouts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from backends.nash.isa.opcodes import OPCODES, Opcode, Operand, Param
from backends.nash.isa.records import DTYPES, INSTRUCTION, SPACES, UNITS, VIEW

__all__ = ["reference_page"]


def _record(name: str, record: np.dtype[np.void]) -> Iterator[str]:
    yield f"### {name}: {record.itemsize} bytes, little endian\n"
    yield "| field | type | offset |\n|---|---|---|"
    for field, (kind, offset, *_) in (record.fields or {}).items():
        count = f"[{kind.shape[0]}]" if kind.shape else ""
        yield f"| {field} | {kind.base.str.lstrip('<|')}{count} | {offset} |"
    yield ""


def _operand(operand: Operand) -> str:
    optional = ", optional" if operand.optional else ""
    return f"| {operand.name} | {operand.access}{optional} | {' '.join(operand.spaces)} | {' '.join(operand.dtypes)} |"


def _param(param: Param) -> str:
    if not param.is_float:
        return f"| {param.name} | {param.minimum} … {param.maximum} | {param.default} | {param.doc} |"
    kind = f"float32, finite, {'above 0' if param.minimum else '0 or above'}"
    return f"| {param.name} | {kind} | {np.int32(param.default).view(np.float32)} | {param.doc} |"


def _opcode(opcode: Opcode) -> Iterator[str]:
    yield f"### {opcode.number} {opcode.name} ({opcode.unit or 'any unit'})\n\n{opcode.doc}\n"
    if opcode.operands:
        yield "| operand | access | memory | types |\n|---|---|---|---|"
        yield from map(_operand, opcode.operands)
        yield ""
    if opcode.params:
        yield "| parameter | range | default | |\n|---|---|---|---|"
        yield from map(_param, opcode.params)
        yield ""


def reference_page() -> str:
    """The instruction set as markdown."""
    lines = [
        "# The Nash instruction set\n",
        "This project's own open design; the vendor's encoding is not public and is not this one.\n",
        f"Memories: {', '.join(SPACES)}. Element types: {', '.join(DTYPES)}.",
        f"Units, each with an in-order queue per core (queue = core * {len(UNITS)} + index): {', '.join(UNITS)}.\n",
        "## Records\n",
        *_record("Instruction", INSTRUCTION),
        *_record("View", VIEW),
        "## Opcodes\n",
    ]
    for opcode in OPCODES:
        lines += _opcode(opcode)
    return "\n".join(lines)
