"""Runs a model's instructions on byte arrays, with the numbers that the interpreter of the quantized module gives.

`bind` turns every instruction into a closure once; `run` calls them in program order. With `check=True` each run starts
from poisoned memory, every read is compared with what was written, and the queues run in the most different order that
the events allow, so that a missing event shows itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from backends.nash.hbm import HostSegment, Model, Tensor, verify_model
from backends.nash.isa import DTYPES, Decoded, Program, View, accesses
from backends.nash.isa.records import dense_strides
from backends.nash.isa.written import WrittenBytes
from backends.nash.simulator.kernels import BINDERS, Step
from hbir.errors import FileFormatError, SimulationError
from hbir.interpreter import Prepared
from hbir.ir.constants import ConstantStore
from hbir.module import Module

__all__ = ["Bound", "bind", "eager_order"]

Array = npt.NDArray[Any]

_POISON = 0xA5


def _aligned(size: int) -> npt.NDArray[np.uint8]:
    """Zeroed bytes that start at a multiple of 64."""
    raw = np.zeros(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size]


class _Memory:
    """The byte arrays of all memories, and arrays over views of them."""

    def __init__(self, model: Model) -> None:
        m = model.memories
        try:
            self.bytes = {("DDR", 0): _aligned(m.ddr), ("L2M", 0): _aligned(m.l2m)}
            self.bytes |= {("L1M", core): _aligned(m.l1m) for core in range(m.cores)}
        except MemoryError:
            what = f"the model asks for {m.ddr} bytes of DDR, which this machine does not have"
            raise SimulationError(13, what, lever="run it on a larger machine") from None
        self.constants = m.constants
        self.bytes["DDR", 0][: m.constants] = np.frombuffer(model.constants, np.uint8)

    def array(self, view: View) -> Array:
        """An array over the view's bytes, writable. The view must have been verified."""
        data = self.bytes[view.space, view.core][view.address : view.end]
        # The stride of an axis of extent 1 means nothing; kernels that ask for density look at it all the same.
        dense = dense_strides(view.shape, view.itemsize)
        strides = tuple(d if n == 1 else s for n, s, d in zip(view.shape, view.strides, dense, strict=True))
        first = data[: view.itemsize].view(DTYPES[view.dtype])
        return as_strided(first, view.shape, strides)

    def poison(self) -> None:
        """Overwrite everything but the constants."""
        for (space, _), data in self.bytes.items():
            data[self.constants if space == "DDR" else 0 :] = _POISON


def _host_functions(host: HostSegment | None) -> list[Prepared]:
    if host is None:
        return []
    store = ConstantStore()
    for digest, data in host.constants.items():
        if hashlib.sha256(data).hexdigest() != digest:
            raise FileFormatError(
                29, f"host constant {digest[:12]}… does not have its hash", lever="compile the model again"
            )
        # Where an array begins decides which loop numpy takes, and with it the last bit of a float.
        kept = _aligned(len(data))
        kept[:] = np.frombuffer(data, np.uint8)
        store.add(digest, kept.data)
    return [function.prepare() for function in Module.parse(host.text, store, source="host section")]


def _host_step(d: Decoded, functions: Sequence[Prepared], arrays: Sequence[Array], where: str) -> Step:
    reads = d.params["inputs"]
    if d.params["function"] >= len(functions):
        raise SimulationError(10, f"there is no host function {d.params['function']}", where=where)
    function, inputs, outputs = functions[d.params["function"]], arrays[:reads], arrays[reads:]
    if (len(function.arguments), len(function.results)) != (len(inputs), len(outputs)):
        raise SimulationError(10, "the host function has other inputs and outputs than its call", where=where)

    def run() -> None:
        # Copies: a result may share memory with an input, and a view of device memory must not escape.
        for out, value in zip(outputs, function.run([np.array(x, order="C") for x in inputs]), strict=True):
            if out.shape != value.shape or out.dtype != value.dtype:
                raise SimulationError(10, f"the host function gives {value.dtype}{value.shape}", where=where)
            out[...] = value

    return run


def eager_order(program: Program) -> list[int]:
    """A legal order as different from the program's as can be: always the ready instruction that stands last in it."""
    heads: dict[int, list[Decoded]] = {}
    for d in reversed(program.decoded):
        heads.setdefault(d.queue, []).append(d)
    done = dict.fromkeys(range(256), 0)
    order: list[int] = []
    while heads:
        ready = [q[-1] for q in heads.values() if all(done[w.queue] >= w.completed for w in q[-1].waits)]
        chosen = max(ready, key=lambda d: d.index)
        order.append(chosen.index)
        done[chosen.queue] += 1
        heads[chosen.queue].pop()
        if not heads[chosen.queue]:
            del heads[chosen.queue]
    return order


@dataclass(frozen=True)
class Bound:
    """A model ready to run any number of times; it owns its memories, so one run at a time."""

    model: Model
    _memory: _Memory
    _steps: tuple[tuple[int, Step], ...]
    _inputs: tuple[Array, ...]
    _outputs: tuple[Array, ...]
    _check: bool

    def run(self, inputs: Mapping[str, npt.ArrayLike]) -> dict[str, Array]:
        """Outputs by name for inputs by name, of exactly the shapes and dtypes that the model states.

        Raises SimulationError HB0708 (names), HB0709 (shape or dtype), HB0711 (an instruction that cannot be carried
        out) and, in check mode, HB0704.
        """
        if self._check:
            self._memory.poison()
        self._feed(inputs)
        if self._check:
            self._run_checked()
        else:
            for index, step in self._steps:
                self._do(index, step)
        return {t.name: out.copy() for t, out in zip(self.model.outputs, self._outputs, strict=True)}

    def _do(self, index: int, step: Step) -> None:
        try:
            step()
        except (ValueError, IndexError, FloatingPointError, ZeroDivisionError) as error:
            name = self.model.program.decoded[index].opcode.name
            where = _where(self.model.program, index)
            raise SimulationError(11, f"{name} cannot be carried out", where=where, why=str(error)) from error

    def _feed(self, inputs: Mapping[str, npt.ArrayLike]) -> None:
        names = [tensor.name for tensor in self.model.inputs]
        if set(inputs) != set(names):
            missing, unknown = sorted(set(names) - set(inputs)), sorted(set(inputs) - set(names))
            raise SimulationError(8, f"inputs missing: {missing}, unknown: {unknown}", lever=f"feed exactly {names}")
        for tensor, array in zip(self.model.inputs, self._inputs, strict=True):
            array[...] = _checked(tensor, inputs[tensor.name])

    def _run_checked(self) -> None:
        program = self.model.program
        written = WrittenBytes(self.model.memories)
        for tensor in self.model.inputs:
            written.write(tensor.view)
        for index, step in self._steps:
            d = program.decoded[index]
            for name, view, writes in accesses(d):
                if not writes and not written.all(view):
                    raise SimulationError(
                        4,
                        f"{d.opcode.name} reads '{name}' before it is written, in an order that the events allow",
                        where=_where(program, index),
                        lever="wait for the instruction that writes it",
                    )
            self._do(index, step)
            for _, view, writes in accesses(d):
                if writes:
                    written.write(view)


def _checked(tensor: Tensor, value: npt.ArrayLike) -> Array:
    array = np.asarray(value)
    if array.shape != tensor.shape or array.dtype != DTYPES[tensor.view.dtype]:
        raise SimulationError(
            9,
            f"input '{tensor.name}' is {array.dtype}{list(array.shape)}",
            why=f"the model takes {tensor.dtype}{list(tensor.shape)}",
            lever="convert the array; nothing is cast or reshaped silently",
        )
    return array


def _where(program: Program, index: int) -> str:
    name = program.layer_name(index)
    return f"instruction {index}" + (f", layer '{name}'" if name else "")


def bind(model: Model, *, check: bool = False, verify: bool = True) -> Bound:
    """Prepare a model for running: verify its program, lay out its memories, bind its instructions.

    `check` runs with poisoned memory in another legal order and looks at every read. `verify=False` skips the proof,
    for a program that was verified before. Raises what `verify_model` raises, SimulationError HB0710 for a bad host
    call, and HB0713 for memories that this machine does not have.
    """
    if verify:
        verify_model(model)
    memory = _Memory(model)
    functions = _host_functions(model.host)
    program = model.program
    arrays = {id(view): memory.array(view) for view in program.decoded_views}
    steps: list[tuple[int, Step]] = []
    for index in eager_order(program) if check else range(len(program)):
        d = program.decoded[index]
        if d.opcode.name == "NOP":
            continue
        mine = {name: arrays[id(view)] for name, view in d.operands.items()}
        if d.opcode.name == "HOST_CALL":
            steps.append((index, _host_step(d, functions, list(mine.values()), _where(program, index))))
        else:
            steps.append((index, BINDERS[d.opcode.name](mine, d.params)))
    inputs, outputs = (tuple(memory.array(t.view) for t in tensors) for tensors in (model.inputs, model.outputs))
    return Bound(model, memory, tuple(steps), inputs, outputs, check)
