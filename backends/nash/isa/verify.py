"""Proof that a program does nothing that no machine may do, before anything runs.

Checked in this order: the records are well formed; every view lies in its memory, is aligned and writes no byte twice;
operands, types, shapes and parameters fit each opcode; waits point backwards, to what exists, so that nothing can
deadlock; every byte read was written before (constants and inputs count as written); conflicting accesses of different
queues are ordered by events; outputs are written completely. Errors name the instruction and the layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from backends.nash.isa.hazards import check_hazards, overlap, vector_clocks
from backends.nash.isa.opcodes import OPCODES
from backends.nash.isa.program import Decoded, Program, accesses, queue_index
from backends.nash.isa.records import (
    ABSENT,
    DTYPE_NAMES,
    MAX_OPERANDS,
    MAX_PARAMS,
    MAX_RANK,
    MAX_WAITS,
    SPACES,
    UNITS,
    View,
    queue_name,
)
from backends.nash.isa.rules import RuleError
from backends.nash.isa.written import WrittenBytes, pieces
from hbir.errors import FileFormatError, SimulationError

__all__ = ["Memories", "check_records", "check_views", "verify_program"]

_ADDRESS_CAP = 1 << 40

# A few bytes of a file can name views of any number of pieces. These bounds keep the proof from taking long; no program of
# ours comes near them.
_PIECES = 1 << 20
"""Dense runs of bytes that one view is made of."""

_WORK = 1 << 22
"""Those of all operands, inputs and outputs of a program, and a thousandth of it more for each instruction."""

_DENSE_UNITS = ("TAE", "VAE", "AAE", "VPU", "SPU")
"""Units whose operands lie densely along their last axis; DMA and TRANS take any strides."""

_IN_PLACE = ("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM", "CLAMP", "RESCALE", "TABLE8", "TABLE16", "SEGMENTED")
"""Opcodes that work element by element: the result may be exactly the view of an operand."""


@dataclass(frozen=True, slots=True)
class Memories:
    """Bytes of each memory. L1M is per core. DDR begins with `constants` bytes that are never written."""

    ddr: int
    l1m: int
    l2m: int = 0
    cores: int = 1
    constants: int = 0

    def size_of(self, space: str) -> int:
        """Bytes of a memory."""
        return {"DDR": self.ddr, "L2M": self.l2m, "L1M": self.l1m}[space]


def _where(program: Program, index: int) -> str:
    name = program.layer_name(index)
    return f"instruction {index}" + (f", layer '{name}'" if name else "")


def _bad_record(program: Program, bad: npt.NDArray[np.bool_], what: str) -> None:
    if bad.any():
        raise FileFormatError(11, what, where=_where(program, int(np.argmax(bad))), lever="compile the model again")


def check_records(program: Program, cores: int) -> None:
    """Every field within the range that its name allows. Raises FileFormatError HB0611 (instructions), HB0612
    (views)."""
    i = program.instructions
    known = np.zeros(1 << 16, np.bool_)
    known[[opcode.number for opcode in OPCODES]] = True
    _bad_record(program, ~known[i["opcode"]], "unknown opcode")
    _bad_record(program, i["core"] >= cores, f"names a core that the model, with {cores}, does not have")
    _bad_record(program, i["wait_count"] > MAX_WAITS, f"more than {MAX_WAITS} waits")
    idle = np.arange(MAX_WAITS) >= i["wait_count"][:, None]
    _bad_record(
        program, (((i["wait_queue"] != 0) | (i["wait_value"] != 0)) & idle).any(1), "an unused wait is not zero"
    )
    if program.layers:
        _bad_record(program, i["layer"] >= len(program.layers), "names a layer that does not exist")
    present = i["operands"] != ABSENT
    _bad_record(program, (present & (i["operands"] >= len(program.views))).any(1), "names a view that does not exist")
    for opcode in OPCODES:
        mine = np.flatnonzero(i["opcode"] == opcode.number)
        if mine.size:
            _check_opcode_records(program, mine, opcode)
    _check_view_records(program, cores)


def _check_opcode_records(program: Program, mine: npt.NDArray[np.intp], opcode: Any) -> None:
    def refuse(bad: npt.NDArray[np.bool_], what: str) -> None:
        everywhere = np.zeros(len(program), np.bool_)
        everywhere[mine[bad]] = True
        _bad_record(program, everywhere, f"{opcode.name}: {what}")

    rows = program.instructions[mine]
    present = rows["operands"] != ABSENT
    for at in range(MAX_OPERANDS):
        operand = opcode.operands[at] if at < len(opcode.operands) else None
        if operand is None:
            refuse(present[:, at], f"operand {at} does not belong to it")
        elif not operand.optional:
            refuse(~present[:, at], f"operand '{operand.name}' is missing")
    lows, highs = np.zeros(MAX_PARAMS, np.int64), np.zeros(MAX_PARAMS, np.int64)
    for at, param in enumerate(opcode.params):
        lows[at], highs[at] = param.minimum, param.maximum
    outside = (rows["params"] < lows) | (rows["params"] > highs)
    for at in np.flatnonzero(outside.any(0)):
        name = opcode.params[at].name if at < len(opcode.params) else f"parameter {at}, which does not belong to it,"
        refuse(outside[:, at], f"{name} is not between {lows[at]} and {highs[at]}")


def _check_view_records(program: Program, cores: int) -> None:
    v = program.views
    axis = np.arange(MAX_RANK)
    beyond = axis >= v["rank"][:, None]
    l1m = v["space"] == SPACES.index("L1M")
    # Extents and strides are bounded one by one first, so that no later sum of products can overflow.
    shape, stride = v["shape"].astype(np.int64), v["stride"].astype(np.int64)
    checks = {
        "memory that does not exist": v["space"] >= len(SPACES),
        "unknown element type": v["dtype"] >= len(DTYPE_NAMES),
        f"more than {MAX_RANK} axes": v["rank"] > MAX_RANK,
        "an L1M that does not exist": np.where(l1m, v["core"] >= cores, v["core"] != 0),
        "padding that is not zero": (v["pad"] != 0) | (((shape != 0) | (stride != 0)) & beyond).any(1),
        "an axis without extent": ((shape < 1) & ~beyond).any(1),
        "a negative stride": (stride < 0).any(1),
        "an extent beyond every memory": (shape * stride > _ADDRESS_CAP).any(1) | (v["address"] > _ADDRESS_CAP),
    }
    for what, bad in checks.items():
        if bad.any():
            raise FileFormatError(12, f"view {int(np.argmax(bad))} has {what}", lever="compile the model again")


def _overlaps_itself(view: View) -> bool:
    """Whether two elements may share bytes; axes of stride 0 (repeats) are left out. Exact for nested strides."""
    reach = view.itemsize
    for stride, extent in sorted((s, n) for n, s in zip(view.shape, view.strides, strict=True) if n > 1 and s):
        if stride < reach:
            return True
        reach += stride * (extent - 1)
    return False


def _check_view(view: View, memories: Memories) -> str:
    size = memories.size_of(view.space)
    if view.end > size:
        return f"ends at byte {view.end} of a {view.space} of {size}"
    if view.address % view.itemsize or any(
        s % view.itemsize for n, s in zip(view.shape, view.strides, strict=True) if n > 1
    ):
        return f"is not aligned to its elements of {view.itemsize} bytes"
    if _overlaps_itself(view):
        return "has elements that overlap"
    # Repeats cost no memory: a bound of their own keeps a hostile file from asking for endless work.
    if view.elements > 1 << 31:
        return f"repeats its elements {view.elements} times"
    if pieces(view) > _PIECES:
        return f"lies in {pieces(view)} pieces"
    return ""


def check_views(program: Program, memories: Memories) -> None:
    """Every view in its memory, aligned and without overlap with itself. Raises SimulationError HB0701."""
    for number, view in enumerate(program.decoded_views):
        if problem := _check_view(view, memories):
            used = np.flatnonzero((program.instructions["operands"] == number).any(1))
            where = _where(program, int(used[0])) if used.size else ""
            raise SimulationError(1, f"view {number} {problem}", where=where, why=str(view))


def _check_work(program: Program, interface: Sequence[View]) -> None:
    left = _WORK + len(program) * (_WORK >> 10) - sum(map(pieces, interface))
    if left < 0:
        raise SimulationError(1, "inputs and outputs lie in too many pieces")
    for d in program.decoded:
        left -= sum(pieces(view) for view in d.operands.values())
        if left < 0:
            what = "operands up to here lie in too many pieces for a program of its length"
            raise SimulationError(1, what, where=_where(program, d.index))


def _check_operands(program: Program) -> None:
    seen: set[object] = set()
    for d, raw in zip(program.decoded, program.instructions, strict=True):
        # Many instructions differ in addresses only: the same opcode, core, shapes and parameters are checked once.
        shapes = tuple((name, v.space, v.core, v.dtype, v.shape, v.strides) for name, v in d.operands.items())
        key = (d.opcode.number, d.core, shapes, raw["params"].tobytes())
        if key in seen:
            continue
        seen.add(key)
        if problem := _operand_problem(d):
            raise SimulationError(2, f"{d.opcode.name}: {problem}", where=_where(program, d.index))


def _operand_problem(d: Decoded) -> str:
    known = {operand.name: operand for operand in d.opcode.operands}
    for name, view, written in accesses(d):
        operand = known[name]
        if view.space not in operand.spaces:
            return f"operand '{name}' is in {view.space}, not in {' or '.join(operand.spaces)}"
        if view.dtype not in operand.dtypes:
            return f"operand '{name}' holds {view.dtype}, not {' or '.join(operand.dtypes)}"
        if view.space == "L1M" and view.core != d.core:
            return f"operand '{name}' is in the L1M of core {view.core}, the instruction runs on core {d.core}"
        if d.opcode.unit in _DENSE_UNITS and view.shape and view.shape[-1] > 1 and view.strides[-1] != view.itemsize:
            return f"operand '{name}' has gaps along its last axis"
        if written and any(s == 0 for n, s in zip(view.shape, view.strides, strict=True) if n > 1):
            return f"operand '{name}' is written and repeats elements"
    try:
        d.opcode.rule(d.operands, d.params)
    except RuleError as error:
        return str(error)
    return ""


def _check_in_place(program: Program) -> None:
    for d in program.decoded:
        written = [view for _, view, writes in accesses(d) if writes]
        for name, view, writes in accesses(d):
            clash = not writes and any(
                view.space == w.space and view.core == w.core and overlap(view, w) is not None for w in written
            )
            if clash and not (d.opcode.name in _IN_PLACE and view in written):
                raise SimulationError(
                    2,
                    f"{d.opcode.name}: its result overlaps operand '{name}'",
                    where=_where(program, d.index),
                    lever="give the result bytes of its own",
                )


def _check_waits(program: Program, cores: int) -> None:
    i, queue = program.instructions, queue_index(program.instructions)
    bad = (i["wait_queue"] >= cores * len(UNITS)).any(1)  # unused ones are zero
    if bad.any():
        raise SimulationError(3, "waits for a queue that does not exist", where=_where(program, int(np.argmax(bad))))
    done = np.zeros(cores * len(UNITS), np.int64)
    rows = zip(
        queue.tolist(), i["wait_count"].tolist(), i["wait_queue"].tolist(), i["wait_value"].tolist(), strict=True
    )
    for index, (own, count, queues, values) in enumerate(rows):
        for wait, value in zip(queues[:count], values[:count], strict=True):
            if not 1 <= value <= done[wait]:
                raise SimulationError(
                    3, f"waits for {value} instructions of {queue_name(wait)}", where=_where(program, index),
                    why=f"{done[wait]} stand before it in the program: it may never start",
                )  # fmt: skip
        done[own] += 1


def _check_bytes(program: Program, memories: Memories, inputs: Sequence[View], outputs: Sequence[View]) -> None:
    written = WrittenBytes(memories)
    for view in inputs:
        written.write(view)
    protected = sorted((view.address, view.end) for view in inputs)
    for d in program.decoded:
        for name, view, writes in accesses(d):
            if not writes:
                if not written.all(view):
                    raise SimulationError(
                        4, f"{d.opcode.name} reads '{name}', part of which nothing has written",
                        where=_where(program, d.index),
                        why=f"{view.space} from byte {view.address} to {view.end}",
                    )  # fmt: skip
                continue
            if view.space == "DDR" and (
                view.address < memories.constants or any(a < view.end and view.address < e for a, e in protected)
            ):
                raise SimulationError(
                    5, f"{d.opcode.name} writes '{name}' over constants or inputs", where=_where(program, d.index),
                    why=f"DDR from byte {view.address} to {view.end}",
                )  # fmt: skip
            written.write(view)
    for number, view in enumerate(outputs):
        if not written.all(view):
            raise SimulationError(
                6, f"output {number} is not written completely", why=f"DDR from byte {view.address} to {view.end}"
            )


def _check_interface(memories: Memories, inputs: Sequence[View], outputs: Sequence[View]) -> None:
    if not 0 <= memories.constants <= memories.ddr or min(memories.l1m, memories.l2m) < 0:
        raise SimulationError(1, f"{memories.constants} bytes of constants in a DDR of {memories.ddr}")
    for kind, views in (("input", inputs), ("output", outputs)):
        for number, view in enumerate(views):
            problem = _check_view(view, memories) or ("" if view.space == "DDR" else f"is in {view.space}, not in DDR")
            if any(s == 0 for n, s in zip(view.shape, view.strides, strict=True) if n > 1):
                problem = "repeats elements"
            if problem or view.address < memories.constants:
                raise SimulationError(1, f"{kind} {number} {problem or 'lies in the constants'}", why=str(view))


def verify_program(program: Program, memories: Memories, inputs: Sequence[View], outputs: Sequence[View]) -> None:
    """Prove the program legal. `inputs` and `outputs` are DDR views.

    Raises FileFormatError HB0611, HB0612 (records) and SimulationError HB0701 (out of memory, misaligned), HB0702
    (operands that do not fit), HB0703 (waits), HB0704 (reads what nothing wrote), HB0705 (writes constants or inputs),
    HB0706 (outputs incomplete), HB0707 (a hazard: conflicting accesses that no event orders).
    """
    check_records(program, memories.cores)
    check_views(program, memories)
    _check_interface(memories, inputs, outputs)
    _check_work(program, (*inputs, *outputs))
    _check_operands(program)
    _check_in_place(program)
    _check_waits(program, memories.cores)
    _check_bytes(program, memories, inputs, outputs)
    clocks = vector_clocks(program)
    if pair := check_hazards(program, clocks):
        first, second, space, address = pair
        names = [f"{program.decoded[i].opcode.name} (layer '{program.layer_name(i)}')" for i in (first, second)]
        raise SimulationError(
            7, f"nothing orders it after instruction {first}, which uses the same bytes", where=_where(program, second),
            why=f"{names[0]} and {names[1]} meet at byte {address} of {space} on different queues",
            lever="wait for the first one's event",
        )  # fmt: skip
