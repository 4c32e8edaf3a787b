"""Writes down the tasks: loads a tile ahead of their compute, stores a tile behind it, weights as early as L1M has room.

Every task gets a slot on one time line. Compute tile t sits at slot t; its loads at t - 1 and its stores at t + 1, so that
two tiles of each streamed tensor are alive and the DMA queues overlap with compute. Weight loads then move further ahead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from backends.nash.isa.cost import host_cycles
from backends.nash.isa.records import dtype_name
from backends.nash.lower.graph import Node, TensorView, UnitGraph
from backends.nash.schedule.gather import gather
from backends.nash.schedule.prefetch import hoist
from backends.nash.schedule.tasks import Buffer, Region, Schedule, Task
from backends.nash.schedule.weights import Layout, bundle
from backends.nash.tile.fusion import row_bytes
from backends.nash.tile.pieces import Share, shares
from backends.nash.tile.plan import Group, NodePlan, TilePlan
from backends.nash.tile.regions import Part, input_part, output_part
from hbir.march import March

__all__ = ["schedule"]


@dataclass
class _Writer:
    graph: UnitGraph
    plan: TilePlan
    march: March
    buffers: list[Buffer] = field(default_factory=list[Buffer])
    timed: list[tuple[float, Task]] = field(default_factory=list[tuple[float, Task]])
    early: set[int] = field(default_factory=set[int])
    homes: dict[int, int] = field(default_factory=dict[int, int])
    contents: dict[bytes, int] = field(default_factory=dict[bytes, int])
    slot: float = 0.0
    windows: dict[int, tuple[int, int]] = field(default_factory=dict[int, tuple[int, int]])
    """Buffer and first byte of the part of a storage that exists now, of those that exist a tile at a time."""
    stores: dict[int, list[tuple[int, int, float]]] = field(default_factory=dict[int, list[tuple[int, int, float]]])

    def buffer(self, space: Any, size: int, core: int = 0, **more: Any) -> int:
        """A new buffer; its number."""
        self.buffers.append(Buffer(space, -(-size // 64) * 64 if space != "DDR" else size, core, **more))
        return len(self.buffers) - 1

    def constant(self, content: bytes) -> int:
        """The buffer of constant bytes; equal bytes are held once."""
        found = self.contents.get(content)
        if found is None:
            found = self.contents[content] = self.buffer("CONST", len(content), content=content)
        return found

    def home(self, storage: int) -> int:
        """The buffer of a storage, where the plan put it."""
        found = self.homes.get(storage)
        if found is None:
            s = self.graph.storages[storage]
            kind = s.kind if s.kind != "activation" else ""
            found = self.homes[storage] = self.buffer(self.plan.spaces[storage], s.size, name=s.name, kind=kind)
        return found

    def region(self, view: TensorView) -> Region:
        """A view as a region of its storage's buffer, or of the tile of it that there is."""
        if view.storage in self.windows:
            buffer, begin = self.windows[view.storage]
            return Region(buffer, view.offset - begin, view.dtype, view.shape, view.strides)
        return Region(self.home(view.storage), view.offset, view.dtype, view.shape, view.strides)

    def stored_until(self, region: Region) -> float:
        """The slot of the last store so far that may write part of a region outside L1M."""
        low, high = _span(region)
        return max((at for a, b, at in self.stores.get(region.buffer, ()) if a < high and low < b), default=-1.0)

    def store(self, at: float, source: Region, target: Region, node: int, core: int) -> None:
        """Store a region, and remember when."""
        self.stores.setdefault(target.buffer, []).append((*_span(target), at))
        layer = self.graph.nodes[node].layer
        self.add(at, Task("STORE", core, layer, {"src": source, "dst": target}, {}, node))

    def add(self, at: float, task: Task, *, early: bool = False) -> None:
        """Put a task on the time line."""
        if early:
            self.early.add(len(self.timed))
        self.timed.append((at, task))

    def load(self, at: float, source: Region, node: int, core: int, *, early: bool = False) -> Region:
        """Load a region into a new dense buffer in L1M."""
        layer = self.graph.nodes[node].layer
        size = int(np.prod(source.shape, dtype=np.int64)) * _ITEM[source.dtype]
        target = Region.dense(self.buffer("L1M", size, core), source.dtype, source.shape)
        self.add(at, Task("LOAD", core, layer, {"src": source, "dst": target}, {}, node), early=early)
        return target

    def load_constant(self, at: float, array: npt.NDArray[Any], node: int, core: int) -> Region:
        """Load a constant array."""
        kept = np.asarray(array, order="C")  # keeps a scalar without axes
        source = Region.dense(self.constant(kept.tobytes()), dtype_name(kept.dtype), kept.shape)
        return self.load(at, source, node, core, early=True)

    def write(self) -> None:
        """Write down every node."""
        groups = {group.first: group for group in self.plan.groups}
        grouped = {index for group in self.plan.groups for index in range(group.first, group.last + 1)}
        for index, node in enumerate(self.graph.nodes):
            if index in groups:
                self._group(groups[index])
            elif index in grouped:
                continue
            elif node.opcode == "HOST_CALL":
                self._host(index, node)
            else:
                _NodeWriter(self, index, node, self.plan.nodes[index]).write()

    def _group(self, group: Group) -> None:
        """A group of nodes, depth first: every tile gets buffers of its own for what lies between them."""
        span = range(group.first, group.last + 1)
        writers = [_NodeWriter(self, index, self.graph.nodes[index], self.plan.nodes[index]) for index in span]
        for tile in range(len(writers[0].plan.tiles)):
            # Several nodes may fill one storage (a concatenation): they share its rows.
            rows = {writer.node.out.storage: (writer, writer.plan.tiles[tile]) for writer in writers}
            for storage in sorted(group.inner):
                writer, (low, high) = rows[storage]
                row = row_bytes(writer.node.out) or 0
                self.windows[storage] = self.buffer("L1M", (high - low) * row), low * row
            for writer in writers:
                writer.tile(tile, None, 0)

    def _host(self, index: int, node: Node) -> None:
        operands = {role: self.region(view) for role, view in (*node.reads.items(), *node.writes.items())}
        ordered = dict(sorted(operands.items(), key=lambda item: int(item[0].removeprefix("operand"))))
        self.slot = max(self.slot + 2, *(self.stored_until(region) + 1 for region in ordered.values()))
        self.add(self.slot, Task("HOST_CALL", 0, node.layer, ordered, node.params, index))
        for region in ordered.values():
            self.stores.setdefault(region.buffer, []).append((*_span(region), self.slot))


def _span(region: Region) -> tuple[int, int]:
    """First byte and one past the last byte that a region may touch in its buffer."""
    reach = sum((n - 1) * s for n, s in zip(region.shape, region.strides, strict=True))
    return region.offset, region.offset + reach + _ITEM[region.dtype]


_ITEM = {name: np.dtype(kind).itemsize for name, kind in (
    *(("i8", "i1"), ("i16", "i2"), ("i32", "i4"), ("i64", "i8"), ("u8", "u1")),
    *(("u16", "u2"), ("f16", "f2"), ("f32", "f4"), ("f64", "f8"), ("b8", "?")),
)}  # fmt: skip

_PACKED = ("weight", "bias", "multiplier", "shift")


class _Place(NamedTuple):
    """Which tile, chunk of output channels and share of a piece (None: the whole window) a core works on."""

    tile: int
    chunk: int | None
    core: int
    share: Share | None


@dataclass
class _NodeWriter:
    writer: _Writer
    index: int
    node: Node
    plan: NodePlan
    loaded: dict[tuple[Any, ...], Region] = field(default_factory=dict[tuple[Any, ...], Region])

    def write(self) -> None:
        """All tiles and chunks of the node."""
        plan, cores = self.plan, self.writer.plan.cores
        several = len(plan.chunks) > 1
        if plan.outer == "tiles":
            pairs = [(t, c) for t in range(len(plan.tiles)) for c in range(len(plan.chunks))]
        else:
            pairs = [(t, c) for c in range(len(plan.chunks)) for t in range(len(plan.tiles))]
        for tile, chunk in pairs:
            core = (tile if plan.outer == "tiles" else chunk) % cores
            self.tile(tile, chunk if several else None, core)

    def tile(self, tile: int, chunk: int | None, core: int) -> None:
        """One tile of one chunk."""
        node, plan = self.node, self.plan
        out = output_part(node, plan.axis, plan.tiles[tile], None if chunk is None else plan.chunks[chunk])
        params: dict[str, int | float] = dict(node.params)
        parts: dict[str, Part] = {}
        for role, view in node.reads.items():
            parts[role], changed = input_part(node, role, view, plan.axis, out)
            params |= changed
        cut = shares(node, plan.pieces, out)
        sums: Region | None = None
        for share in cut[:-1]:
            sums = self._accumulate(parts["x"], {**params, **share.params}, _Place(tile, chunk, core, share), out, sums)
        last = cut[-1] if cut else None
        params |= {} if last is None else last.params
        self._finish(parts, params, _Place(tile, chunk, core, last), out, sums)

    def _turn(self, views: Iterable[TensorView]) -> float:
        """The next slot: a load comes behind the stores that fill what it reads, and the compute behind the load."""
        w = self.writer
        w.slot = max(w.slot + 1, *(w.stored_until(w.region(view)) + 2.0 for view in views), 0.0)
        return w.slot

    def _accumulate(
        self, part: Part, params: Mapping[str, int | float], place: _Place, out: Part, sums: Region | None
    ) -> Region:
        """One piece onto the sums of those before; the new sums."""
        w, node = self.writer, self.node
        x = self._piece_part("x", part, place).of(node.reads["x"])
        at = self._turn([x])
        # No other constant: a residual comes in once, with the last piece.
        operands = {"x": self._operand(at, "x", part, place), **self._weights(at, place)}
        if sums is not None:
            operands["partial"] = sums
        dtype = "i32" if x.dtype == "i8" else "i64"
        size = int(np.prod(out.extent, dtype=np.int64)) * _ITEM[dtype]
        operands["out"] = Region.dense(w.buffer("L1M", size, place.core), dtype, out.extent)
        w.add(at, Task(node.opcode, place.core, node.layer, operands, params, self.index))
        return operands["out"]

    def _piece_part(self, role: str, part: Part, place: _Place) -> Part:
        """The part of an operand that is loaded for a piece: for a piece of the channels, the window's rows of these."""
        share = place.share
        if role != "x" or share is None or share.piece.channels == (0, self.node.constants["weight"].shape[3]):
            return part
        low, high = share.piece.channels
        return Part((*part.begin[:3], low), (*part.extent[:3], high - low))

    def _operand(self, at: float, role: str, part: Part, place: _Place) -> Region:
        """An operand in L1M; of what is there for all pieces of a window, each reads the box that its taps meet."""
        loaded = self._piece_part(role, part, place)
        region = self._input(at, loaded.of(self.node.reads[role]), place.core)
        if role != "x" or place.share is None:
            return region
        box = place.share.box
        ahead = (box.begin[axis] - loaded.begin[axis] if axis in (1, 2) else 0 for axis in range(4))
        offset = region.offset + sum(n * stride for n, stride in zip(ahead, region.strides, strict=True))
        shape = (region.shape[0], box.extent[1], box.extent[2], region.shape[3])
        return Region(region.buffer, offset, region.dtype, shape, region.strides)

    def _finish(
        self,
        parts: Mapping[str, Part],
        params: Mapping[str, int | float],
        place: _Place,
        out: Part,
        sums: Region | None,
    ) -> None:
        """The instruction that makes the result, and its store."""
        w, node, core = self.writer, self.node, place.core
        at = self._turn(self._piece_part(role, part, place).of(node.reads[role]) for role, part in parts.items())
        operands = {role: self._operand(at, role, part, place) for role, part in parts.items()}
        operands |= self._constants(at, place, out)
        if sums is not None:
            operands["partial"] = sums
        target, stored = self._output(out, core)
        operands[next(iter(node.writes))] = made = stored or target
        if node.opcode == "COPY" and "src" in node.constants:
            # A constant that only has to be put in place needs no copy: the load does it.
            source = self._constant_part(node.constants["src"], out)
            w.add(at, Task("LOAD", core, node.layer, {"src": source, "dst": made}, {}, self.index))
        else:
            w.add(at, Task(node.opcode, core, node.layer, operands, params, self.index))
        if stored is not None:
            w.store(at + 1.5, stored, target, self.index, core)

    def _input(self, at: float, view: TensorView, core: int) -> Region:
        w = self.writer
        source = w.region(view)
        if w.buffers[source.buffer].space == "L1M":
            return source
        # Without a second reader of the very same part, the load is this tile's own.
        key = (source, core)
        if key not in self.loaded:
            if self.plan.axis is not None or self.plan.pieces:
                self.loaded = {k: r for k, r in self.loaded.items() if k[0] == "weights"}
            self.loaded[key] = w.load(at - 1.5, source, self.index, core)
        return self.loaded[key]

    def _output(self, out: Part, core: int) -> tuple[Region, Region | None]:
        """Where the result goes, and the L1M buffer that it is made in when that is elsewhere."""
        w = self.writer
        target = w.region(out.of(self.node.out))
        if w.buffers[target.buffer].space == "L1M":
            return target, None
        size = int(np.prod(target.shape, dtype=np.int64)) * _ITEM[target.dtype]
        return target, Region.dense(w.buffer("L1M", size, core), target.dtype, target.shape)

    def _constant_part(self, array: npt.NDArray[Any], out: Part) -> Region:
        box = tuple(slice(begin, begin + extent) for begin, extent in zip(out.begin, out.extent, strict=True))
        kept = np.asarray(array[box], order="C")
        return Region.dense(self.writer.constant(kept.tobytes()), dtype_name(kept.dtype), kept.shape)

    def _constants(self, at: float, place: _Place, out: Part) -> dict[str, Region]:
        node, core, operands = self.node, place.core, dict[str, Region]()
        if node.opcode == "COPY":
            return operands
        if "weight" in node.constants:
            operands |= self._weights(at, place)
        for role, array in node.constants.items():
            if role in _PACKED and "weight" in node.constants:
                continue
            key = ("weights", role, core)
            if key not in self.loaded:
                self.loaded[key] = self.writer.load_constant(at - 1.5, array, self.index, core)
            operands[role] = self._aligned(role, self.loaded[key], out)
        return operands

    def _aligned(self, role: str, region: Region, out: Part) -> Region:
        """The part of a constant operand that a tile reads; of tables and the like all."""
        if role not in ("a", "b", "x", "residual"):
            return region
        whole = TensorView(0, region.offset, region.shape, region.strides, region.dtype)
        view = input_part(self.node, role, whole, self.plan.axis, out)[0].of(whole)
        return Region(region.buffer, view.offset, view.dtype, view.shape, view.strides)

    def _weights(self, at: float, place: _Place) -> dict[str, Region]:
        """One transfer brings packed weights, biases, multipliers and shifts of a chunk of output channels."""
        plan, (tile, chunk, core, share) = self.plan, place
        key: tuple[Any, ...] = ("weights", chunk, core)
        if share is not None:
            key = (*key, share.piece, share.first, share.last, share.skipped)
        passing = (chunk is not None and plan.outer == "tiles") or share is not None
        if passing and not plan.keep_weights:
            key = (*key, tile)
        if key not in self.loaded:
            channels = plan.chunks[chunk] if chunk is not None else (0, self.node.out.shape[3])
            content, layout = bundle(self.node, channels, share)
            source = Region.dense(self.writer.constant(content), "u8", (len(content),))
            held = self.writer.load(at - 1.5, source, self.index, core, early=True)
            self.loaded[key] = held
            self.layouts[key] = layout
        held = self.loaded[key]
        return {
            role: Region.dense(held.buffer, dtype, (count,), offset)
            for role, (offset, dtype, count) in self.layouts[key].items()
        }

    layouts: dict[tuple[Any, ...], Layout] = field(default_factory=dict[tuple[Any, ...], Layout])


def _while_the_host_works(tasks: Iterable[Task], march: March) -> dict[int, int]:
    """For each buffer that the host fills, the bytes that the march moves in the time that the host takes for it."""
    found: dict[int, int] = {}
    for task in tasks:
        if task.opcode == "HOST_CALL":
            operands = list(task.operands.values())
            size = sum(int(np.prod(region.shape, dtype=np.int64)) * _ITEM[region.dtype] for region in operands)
            passing = int(host_cycles(march, size) * march.ddr_bytes_per_cycle)
            found |= dict.fromkeys((region.buffer for region in operands[int(task.params["inputs"]) :]), passing)
    return found


def schedule(graph: UnitGraph, plan: TilePlan, march: March, *, prefetch: bool = True, transfer: int = 0) -> Schedule:
    """Order the work of every queue. With `prefetch`, loads of constants move ahead as far as the plan's budget allows, and
    small ones are gathered into transfers of up to `transfer` bytes."""
    writer = _Writer(graph, plan, march)
    for _, view in (*graph.inputs, *graph.outputs):
        writer.home(view.storage)
    writer.write()
    order = sorted(range(len(writer.timed)), key=lambda i: (writer.timed[i][0], i))
    tasks = [writer.timed[i][1] for i in order]
    early = {new for new, old in enumerate(order) if old in writer.early}
    buffers = writer.buffers
    if prefetch:
        if transfer:
            # Constants that came together stay until the last of them was used: that must not be much of L1M.
            tasks, buffers, early = gather(tasks, early, buffers, min(transfer, plan.budget // 16))
        tasks = hoist(tasks, early, buffers, plan.budget, _while_the_host_works(tasks, march))
    result = Schedule(tuple(buffers), tuple(tasks))
    result.verify()
    return result
