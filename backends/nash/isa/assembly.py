"""Programs as text that a person can read and write; `assemble(disassemble(p))` is `p`, byte for byte.

    .layer 0 "conv1"
    .view 0 L1M0[0x0] i8 1x8x8x16                       only where the order of first use does not tell
    LOAD@0 src=DDR[0x40] i8 1x8x8x16 strides 2048x256x32x1, dst=L1M0[0x0] i8 1x8x8x16
    CONV@0 x=L1M0[0x0] i8 1x8x8x16, …, out=… ; kernel_h=3 kernel_w=3 ; wait LOAD0>=2 STORE0>=1 ; layer 0
    NOP.TAE@0 ; wait LOAD0>=3                             # a comment

The number behind the @ is the core; NOP says which unit's queue it is in. A view is memory, byte address, element type,
extents and, unless it is dense, strides in bytes; `%3` names a declared view. Parameters that have their default are
left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import NoReturn

import numpy as np

from backends.nash.isa.opcodes import BY_NAME, Opcode, Param
from backends.nash.isa.program import Decoded, Program
from backends.nash.isa.records import (
    ABSENT,
    DTYPE_NAMES,
    DTYPES,
    INSTRUCTION,
    MAX_OPERANDS,
    MAX_PARAMS,
    MAX_WAITS,
    UNITS,
    VIEW,
    View,
    dense_strides,
    queue_name,
)
from hbir.errors import FileFormatError

__all__ = ["assemble", "disassemble", "format_params", "format_view"]

_VIEW = re.compile(r"(DDR|L2M|L1M(\d+))\[(\w+)\] (\w+) ([\dx]+|scalar)(?: strides ([\dx]+))?")
_HEAD = re.compile(r"([A-Z][A-Z0-9_]*)(?:\.([A-Z]+))?@(\d+)(?:\s+(.*))?")
_WAIT = re.compile(r"([A-Z]+)(\d+)>=(\d+)")


def _dims(values: tuple[int, ...]) -> str:
    return "x".join(map(str, values)) or "scalar"


def format_view(view: View) -> str:
    """``L1M0[0x40] i8 1x8x8x16``, with ``strides …`` unless dense."""
    space = f"L1M{view.core}" if view.space == "L1M" else view.space
    text = f"{space}[{view.address:#x}] {view.dtype} {_dims(view.shape)}"
    if view.strides != dense_strides(view.shape, view.itemsize):
        text += f" strides {_dims(view.strides)}"
    return text


def _format_param(param: Param, value: int) -> str:
    if param.is_float:
        exact = np.int32(value).view(np.float32)
        short = str(exact)
        return f"{param.name}={short if np.float32(short) == exact else repr(float(exact))}"
    return f"{param.name}={value}"


def format_params(instruction: Decoded) -> str:
    """``kernel_h=3 shift=12``: the parameters that do not have their default."""
    params = ((p, instruction.params[p.name]) for p in instruction.opcode.params if p.name != "unit")
    return " ".join(_format_param(p, value) for p, value in params if value != p.default)


def _in_order_of_use(program: Program) -> bool:
    """Whether the views are what reading the text from the top collects: distinct, numbered by first use."""
    used = program.instructions["operands"]
    used = used[used != ABSENT]
    unique, first = np.unique(used, return_index=True)
    distinct = len({record.tobytes() for record in program.views}) == len(program.views)
    return distinct and len(unique) == len(program.views) and bool((np.diff(first) > 0).all())


def disassemble(program: Program) -> str:
    """The program as text. The program must have passed the verifier's check of its records."""
    return "\n".join(_lines(program)) + "\n"


def _lines(program: Program) -> Iterator[str]:
    for number, name in enumerate(program.layers):
        yield f".layer {number} {json.dumps(name, ensure_ascii=False)}"
    texts = [format_view(view) for view in program.decoded_views]
    if not _in_order_of_use(program):
        for number, text in enumerate(texts):
            yield f".view {number} {text}"
        texts = [f"%{number}" for number in range(len(texts))]
    names = {id(view): text for view, text in zip(program.decoded_views, texts, strict=True)}
    for d in program.decoded:
        unit = "" if d.opcode.unit else "." + UNITS[d.queue % len(UNITS)]
        parts = [
            f"{d.opcode.name}{unit}@{d.core} " + ", ".join(f"{name}={names[id(v)]}" for name, v in d.operands.items())
        ]
        if params := format_params(d):
            parts.append(params)
        if d.waits:
            parts.append("wait " + " ".join(f"{queue_name(queue)}>={count}" for queue, count in d.waits))
        if d.layer:
            parts.append(f"layer {d.layer}")
        yield " ; ".join(part.rstrip() for part in parts)


class _Reader:
    """Collects records line by line; errors name the line."""

    def __init__(self) -> None:
        self.line = 0
        self.layers: list[str] = []
        self.views: dict[tuple[object, ...], int] = {}
        self.declared: list[tuple[object, ...]] = []
        self.rows: list[tuple[object, ...]] = []

    def fail(self, what: str, lever: str = "mend the line") -> NoReturn:
        raise FileFormatError(10, what, where=f"assembly line {self.line}", lever=lever)

    def number(self, text: str) -> int:
        try:
            return int(text, 0)
        except ValueError:
            self.fail(f"'{text}' is not an integer")

    def dims(self, text: str) -> tuple[int, ...]:
        return () if text == "scalar" else tuple(self.number(item) for item in text.split("x"))

    def view(self, text: str) -> tuple[object, ...]:
        match = _VIEW.fullmatch(text)
        if match is None:
            self.fail(f"'{text}' is not a view", "write MEMORY[address] type extents, as in L1M0[0x40] i8 1x8x8x16")
        space, core, address, dtype, shape, strides = match.groups()
        if dtype not in DTYPE_NAMES:
            self.fail(f"there is no element type '{dtype}'", f"choose one of {', '.join(DTYPE_NAMES)}")
        extents = self.dims(shape)
        steps = dense_strides(extents, DTYPES[dtype].itemsize) if strides is None else self.dims(strides)
        name = "L1M" if core else space
        try:
            packed = View(name, dtype, extents, self.number(address), steps, int(core or 0)).pack()
            np.array([packed], VIEW)
        except (ValueError, OverflowError) as error:
            self.fail(f"'{text}': {error}")
        return packed

    def operand(self, text: str) -> int:
        if text.startswith("%"):
            number = self.number(text[1:])
            if not 0 <= number < len(self.declared):
                self.fail(f"view {text} is not declared")
            return number
        packed = self.view(text)
        if self.declared:
            if packed not in self.declared:
                self.fail("a program that declares views names them all", "add a .view line")
            return self.declared.index(packed)
        return self.views.setdefault(packed, len(self.views))

    def read(self, text: str) -> None:
        if text.startswith(".layer "):
            _, number, name = text.split(maxsplit=2) if len(text.split(maxsplit=2)) == 3 else ("", "", "")
            try:
                value = json.loads(name)
            except ValueError:
                value = None
            if number != str(len(self.layers)) or not isinstance(value, str):
                self.fail(f'write .layer {len(self.layers)} "name"')
            self.layers.append(value)
        elif text.startswith(".view "):
            _, number, body = (*text.split(maxsplit=2), "", "")[:3]
            if self.rows or number != str(len(self.declared)):
                self.fail("views are declared before the first instruction, numbered from 0")
            self.declared.append(self.view(body))
        else:
            self.instruction([part.strip() for part in text.split(" ; ")])

    def instruction(self, parts: list[str]) -> None:
        match = _HEAD.fullmatch(parts[0])
        opcode = BY_NAME.get(match[1]) if match else None
        if match is None or opcode is None:
            self.fail(f"'{parts[0].split(' ')[0]}' is not an opcode and a core", "write CONV@0, say")
        params = {"unit": UNITS.index(match[2])} if match[2] in UNITS and not opcode.unit else {}
        if (not opcode.unit) != bool(params) or (match[2] and not params):
            self.fail(
                f"{opcode.name} is written {opcode.name}.TAE@0"
                if not opcode.unit
                else f"{opcode.name} names its unit itself"
            )
        operands, layer, waits = self.operands(opcode, match[4] or ""), 0, list[tuple[int, int]]()
        for part in parts[1:]:
            if part.startswith("wait "):
                waits = [self.wait(item) for item in part.split()[1:]]
            elif part.startswith("layer "):
                layer = self.number(part[6:].strip())
            else:
                params |= self.params(opcode, part)
        if len(waits) > MAX_WAITS:
            self.fail(f"{len(waits)} waits; an instruction has {MAX_WAITS}", "put the others on a NOP before it")
        fill = [0] * (MAX_WAITS - len(waits))
        values = [params.get(p.name, p.default) for p in opcode.params]
        values += [0] * (MAX_PARAMS - len(values))
        queues, counts = [w[0] for w in waits] + fill, [w[1] for w in waits] + fill
        row = (opcode.number, int(match[3]), len(waits), layer, queues, counts, operands, values)
        try:
            np.array([row], INSTRUCTION)
        except (OverflowError, ValueError) as error:
            self.fail(f"a value does not fit its field: {error}")
        self.rows.append(row)

    def operands(self, opcode: Opcode, text: str) -> list[int]:
        given: dict[str, int] = {}
        for item in filter(None, (item.strip() for item in text.split(","))):
            name, _, value = item.partition("=")
            if name not in {o.name for o in opcode.operands} or name in given:
                self.fail(f"{opcode.name} has no operand '{name}', or has it twice")
            given[name] = self.operand(value.strip())
        for operand in opcode.operands:
            if not operand.optional and operand.name not in given:
                self.fail(f"{opcode.name} needs operand '{operand.name}'")
        slots = [given.get(operand.name, ABSENT) for operand in opcode.operands]
        return slots + [ABSENT] * (MAX_OPERANDS - len(slots))

    def params(self, opcode: Opcode, text: str) -> Mapping[str, int]:
        known = {param.name: param for param in opcode.params}
        given: dict[str, int] = {}
        for item in text.split():
            name, equals, value = item.partition("=")
            if name not in known or not equals:
                self.fail(f"{opcode.name} has no parameter '{name}'", f"choose from {', '.join(known) or 'none'}")
            given[name] = self.float_bits(value) if known[name].is_float else self.number(value)
        return given

    def float_bits(self, text: str) -> int:
        try:
            with np.errstate(over="ignore"):
                return int(np.float32(text).view(np.int32))
        except ValueError:
            self.fail(f"'{text}' is not a number")

    def wait(self, text: str) -> tuple[int, int]:
        match = _WAIT.fullmatch(text)
        if match is None or match[1] not in UNITS:
            self.fail(f"'{text}' is not a wait", "write LOAD0>=2: unit, core, count")
        return int(match[2]) * len(UNITS) + UNITS.index(match[1]), int(match[3])


def assemble(text: str) -> Program:
    """The program that the text describes. Raises FileFormatError HB0610 with the line.

    The result is well formed as records; whether it makes sense is the verifier's business.
    """
    reader = _Reader()
    for reader.line, raw in enumerate(text.split("\n"), 1):
        line = raw if raw.startswith(".layer") else raw.split("#", 1)[0]
        if line.strip():
            reader.read(line.strip())
    views = reader.declared or list(reader.views)
    return Program(np.array(reader.rows, INSTRUCTION), np.array(views, VIEW), tuple(reader.layers))
