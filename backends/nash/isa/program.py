"""A program: instructions, the views they name, the layers they come from; and the builder that makes one.

The builder speaks in opcode names, views and events, and takes care of what a schedule should not think about: views
are held once, waits that follow from others are dropped, and those that do not fit an instruction ride on NOPs before
it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from backends.nash.isa.opcodes import BY_NAME, BY_NUMBER, Opcode
from backends.nash.isa.records import (
    ABSENT,
    INSTRUCTION,
    MAX_OPERANDS,
    MAX_PARAMS,
    MAX_WAITS,
    UNITS,
    VIEW,
    Records,
    View,
    queue_of,
)

__all__ = ["Decoded", "Event", "Program", "ProgramBuilder", "accesses", "queue_index"]

_MAX_QUEUES = 256


class Event(NamedTuple):
    """The moment when `queue` has completed so many instructions."""

    queue: int
    completed: int


@dataclass(frozen=True, slots=True)
class Decoded:
    """One instruction as names and values. `operands` holds those that are present, in the order of the opcode."""

    index: int
    opcode: Opcode
    core: int
    queue: int
    operands: Mapping[str, View]
    params: Mapping[str, int]
    waits: tuple[Event, ...]
    layer: int


@dataclass(frozen=True)
class Program:
    """Instructions and views as numpy structured arrays (see `records`), and the names of the layers.

    `layers` may be empty: the names are for readers only.
    """

    instructions: Records
    views: Records
    layers: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Program):
            return NotImplemented
        return (
            self.instructions.tobytes() == other.instructions.tobytes()
            and self.views.tobytes() == other.views.tobytes()
            and self.layers == other.layers
        )

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __len__(self) -> int:
        return len(self.instructions)

    @cached_property
    def decoded_views(self) -> list[View]:
        """Every view, by index. The program must have passed the verifier's check of its records."""
        return [View.unpack(record) for record in self.views]

    @cached_property
    def decoded(self) -> list[Decoded]:
        """Every instruction, in program order. The program must have passed the verifier's check of its records."""
        return list(self._decode())

    def _decode(self) -> Iterator[Decoded]:
        views = self.decoded_views
        columns: dict[str, list[Any]] = {name: self.instructions[name].tolist() for name in INSTRUCTION.names or ()}
        rows = zip(*columns.values(), strict=True)
        for index, (number, core, wait_count, layer, queues, values, operands, params) in enumerate(rows):
            opcode = BY_NUMBER[number]
            named: dict[str, View] = {
                o.name: views[at] for o, at in zip(opcode.operands, operands, strict=False) if at != ABSENT
            }
            given = {p.name: value for p, value in zip(opcode.params, params, strict=False)}
            waits = tuple(Event(*wait) for wait in zip(queues[:wait_count], values[:wait_count], strict=True))
            queue = core * len(UNITS) + (given["unit"] if not opcode.unit else UNITS.index(opcode.unit))
            yield Decoded(index, opcode, core, queue, named, given, waits, layer)

    def layer_name(self, index: int) -> str:
        """Name of the layer that an instruction comes from, or "" when names were left out."""
        layer = int(self.instructions["layer"][index])
        return self.layers[layer] if layer < len(self.layers) else ""


def accesses(instruction: Decoded) -> Iterator[tuple[str, View, bool]]:
    """Operand name, view and whether it is written, reads first."""
    if instruction.opcode.name == "HOST_CALL":
        reads = instruction.params["inputs"]
        for at, (name, view) in enumerate(instruction.operands.items()):
            yield name, view, at >= reads
        return
    written = [o.name for o in instruction.opcode.operands if o.access == "w"]
    for name, view in instruction.operands.items():
        if name not in written:
            yield name, view, False
    for name in written:
        if name in instruction.operands:
            yield name, instruction.operands[name], True


def queue_index(instructions: Records) -> npt.NDArray[np.int64]:
    """Queue number of every instruction."""
    unit = np.zeros(1 << 16, np.int64)
    for opcode in BY_NUMBER.values():
        unit[opcode.number] = UNITS.index(opcode.unit) if opcode.unit else 0
    free = [opcode.number for opcode in BY_NUMBER.values() if not opcode.unit]
    own = np.where(np.isin(instructions["opcode"], free), instructions["params"][:, 0], unit[instructions["opcode"]])
    return instructions["core"].astype(np.int64) * len(UNITS) + own


class ProgramBuilder:
    """Collects instructions in a global order in which every wait points backwards."""

    def __init__(self) -> None:
        self._rows: list[tuple[object, ...]] = []
        self._views: dict[View, int] = {}
        self._layers: dict[str, int] = {}
        self._clocks: dict[int, list[npt.NDArray[np.uint32]]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def layer(self, name: str) -> int:
        """Index of a layer's name, added when new."""
        return self._layers.setdefault(name, len(self._layers))

    def append(
        self,
        opcode: str,
        operands: Mapping[str, View] | None = None,
        params: Mapping[str, int | float] | None = None,
        *,
        core: int = 0,
        waits: Sequence[Event] = (),
        layer: int | str = 0,
        unit: str = "",
    ) -> Event:
        """Add an instruction; the result is the event of its completion, for the waits of later ones.

        Raises ValueError for unknown opcodes, operands and parameters, for values that a field cannot hold and for
        waits on what is not in the program yet. Whether the instruction makes sense is the verifier's business.
        """
        row = _encode(opcode, operands or {}, params or {}, unit, self._view)
        found = BY_NAME[opcode]
        queue = queue_of(core, found.unit or unit)
        layer = self.layer(layer) if isinstance(layer, str) else layer
        needed, clock = self._reduce(queue, waits)
        while len(needed) > MAX_WAITS:
            carried, needed = needed[:MAX_WAITS], needed[MAX_WAITS:]
            nop = _encode("NOP", {}, {}, UNITS[queue % len(UNITS)], self._view)
            self._add(queue, core, nop, carried, layer, clock)
        return self._add(queue, core, row, needed, layer, clock)

    def _view(self, view: View) -> int:
        return self._views.setdefault(view, len(self._views))

    def _reduce(self, queue: int, waits: Sequence[Event]) -> tuple[list[Event], npt.NDArray[np.uint32]]:
        """Waits that do not follow from the queue's own order or from each other, and what is complete after them."""
        latest: dict[int, int] = {}
        for wait in waits:
            if not 1 <= wait.completed <= len(self._clocks.get(wait.queue, ())):
                raise ValueError(f"{wait} is not in the program yet")
            latest[wait.queue] = max(latest.get(wait.queue, 0), wait.completed)
        own = self._clocks.get(queue)
        clock = own[-1].copy() if own else np.zeros(_MAX_QUEUES, np.uint32)
        events = [Event(q, c) for q, c in sorted(latest.items()) if c > clock[q]]
        kept: list[Event] = []
        for event in events:
            others = (self._clocks[other.queue][other.completed - 1] for other in events if other != event)
            if not any(reached[event.queue] >= event.completed for reached in others):
                kept.append(event)
        for event in kept:
            np.maximum(clock, self._clocks[event.queue][event.completed - 1], out=clock)
        return kept, clock

    def _add(
        self,
        queue: int,
        core: int,
        row: tuple[object, ...],
        waits: Sequence[Event],
        layer: int,
        clock: npt.NDArray[np.uint32],
    ) -> Event:
        number, operands, params = row
        fill = [0] * (MAX_WAITS - len(waits))
        queues, counts = [w.queue for w in waits] + fill, [w.completed for w in waits] + fill
        self._rows.append((number, core, len(waits), layer, queues, counts, operands, params))
        done = self._clocks.setdefault(queue, [])
        reached = clock.copy()
        reached[queue] = len(done) + 1
        done.append(reached)
        return Event(queue, len(done))

    def build(self) -> Program:
        """The program so far. Raises ValueError for a value that its field cannot hold."""
        try:
            instructions = np.array(self._rows, INSTRUCTION)
            views = np.array([view.pack() for view in self._views], VIEW)
        except OverflowError as error:
            raise ValueError(f"a value does not fit its field: {error}") from None
        return Program(instructions, views, tuple(self._layers))


def _encode(
    name: str,
    operands: Mapping[str, View],
    params: Mapping[str, int | float],
    unit: str,
    view_index: Callable[[View], int],
) -> tuple[int, list[int], list[int]]:
    opcode = BY_NAME.get(name)
    if opcode is None:
        raise ValueError(f"there is no opcode '{name}'")
    if not opcode.unit:
        params = {**params, "unit": UNITS.index(unit)}
    if unknown := sorted({*operands} - {o.name for o in opcode.operands}) + sorted(
        {*params} - {p.name for p in opcode.params}
    ):
        raise ValueError(f"{name} has no operand or parameter '{unknown[0]}'")
    slots = [ABSENT] * MAX_OPERANDS
    for at, operand in enumerate(opcode.operands):
        if operand.name in operands:
            slots[at] = view_index(operands[operand.name])
        elif not operand.optional:
            raise ValueError(f"{name} needs operand '{operand.name}'")
    values = [0] * MAX_PARAMS
    for at, param in enumerate(opcode.params):
        value = params.get(param.name, param.default)
        if param.is_float and isinstance(value, float):
            value = int(np.float32(value).view(np.int32))
        if value != int(value) or not param.minimum <= value <= param.maximum:
            raise ValueError(f"{name}: {param.name} = {value} is not between {param.minimum} and {param.maximum}")
        values[at] = int(value)
    return opcode.number, slots, values
