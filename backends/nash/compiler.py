"""The road from a quantised module to a model: lower, tile, schedule, allocate, encode; the best of a few plans is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version

from backends.nash.allocate import Addresses, allocate
from backends.nash.encode import encode
from backends.nash.hbm.model import HostSegment, Model, Quantization, Tensor
from backends.nash.isa import Memories, View
from backends.nash.lower import TensorView, UnitGraph, lower
from backends.nash.schedule import Schedule, schedule
from backends.nash.simulator.timing import simulate
from backends.nash.tile import TileOptions, TilePlan, node_cycles, tile
from hbir.errors import BackendError
from hbir.march import March
from hbir.module import Argument, Module

__all__ = ["CompileOptions", "Stages", "compile_model"]

_BUDGETS = (0.96, 0.9, 0.82, 0.72, 0.6, 0.45)
_PIPELINES = {0: (1,), 1: (4,), 2: (1, 4, 8)}
_TRANSFER = 64 << 10
"""Bytes of constants that one transfer brings at most, where several layers' are small: its latency then is a fifth of it."""
_TRANSFERS = {0: (), 1: (), 2: (0, 256 << 10)}
"""What else is tried with the best plan: no gathering, and larger transfers."""


@dataclass(frozen=True, slots=True)
class CompileOptions:
    """`opt` 0 to 2: how many plans are tried. `balance` 0 to 100: 100 asks for fewest cycles, 0 for least DDR traffic.
    `cores`: cores that may work on one frame; with opt 2, one alone where that is faster. `l2m_bytes`: how much L2M
    activations may take (0: none)."""

    opt: int = 2
    balance: int = 100
    cores: int = 1
    l2m_bytes: int = 0
    debug: bool = True
    description: str = ""


@dataclass(frozen=True, slots=True)
class Stages:
    """The three decisions on the road, as functions: how nodes are cut, in which order the work is done, and where it lies.

    Whatever they decide within their rules, the model computes the same. The stock ones ask for few cycles;
    `backends.nash.variation` has others, for tests of that sentence.
    """

    tile: Callable[[UnitGraph, March, TileOptions], TilePlan] = tile
    schedule: Callable[..., Schedule] = schedule
    allocate: Callable[..., Addresses] = allocate


def _check(options: CompileOptions, march: March) -> None:
    problems = {
        "opt": (options.opt in _PIPELINES, f"opt is {options.opt}", "choose 0, 1 or 2"),
        "balance": (
            options.balance in range(101),
            f"balance is {options.balance}",
            "choose 0 (least DDR) to 100 (fastest)",
        ),
        "cores": (
            1 <= options.cores <= march.cores,
            f"core_num is {options.cores}",
            f"{march.name} has {march.cores} core(s)",
        ),
        "l2m": (
            0 <= options.l2m_bytes <= march.l2m_bytes,
            f"max_l2m_size is {options.l2m_bytes}",
            f"{march.name} has {march.l2m_bytes} bytes of L2M",
        ),
    }
    for good, what, lever in problems.values():
        if not good:
            raise BackendError(51, what, lever=lever)


@dataclass(frozen=True)
class _Candidate:
    plan: TilePlan
    schedule: Schedule
    addresses: Addresses
    model: Model
    cycles: int
    ddr_bytes: int


_Plan = tuple[TilePlan, Schedule, Addresses]


def _plans(graph: UnitGraph, march: March, options: CompileOptions, stages: Stages, pipeline: int) -> Iterator[_Plan]:
    """A plan with layers worked through depth first, if there is any to be had, and one without."""
    first: _Plan | None = None
    if options.opt > 0 and options.cores == 1:
        try:
            first = _fitting(graph, march, options, stages, pipeline, fuse=True)
        except BackendError:
            # Without groups it may fit; if not, that refusal is the one to tell.
            first = None
    if first is not None:
        yield first
        if not first[0].groups:
            return
    try:
        yield _fitting(graph, march, options, stages, pipeline, fuse=False)
    except BackendError:
        if first is None:
            raise


def _fitting(
    graph: UnitGraph, march: March, options: CompileOptions, stages: Stages, pipeline: int, *, fuse: bool
) -> _Plan:
    """The plan of the largest budget that fits its memory: tiles, prefetch and residents share L1M with fragmentation."""
    refusal: BackendError | None = None
    for budget in _BUDGETS:
        wanted = TileOptions(budget, pipeline, l2m_bytes=options.l2m_bytes, cores=options.cores, fuse=fuse)
        try:
            plan = stages.tile(graph, march, wanted)
            tasks = stages.schedule(graph, plan, march, prefetch=options.opt > 0, transfer=_TRANSFER)
            return plan, tasks, stages.allocate(tasks, march, l2m_bytes=options.l2m_bytes)
        except BackendError as error:
            # A smaller budget leaves room for fragmentation, but asks more of the tiles: the first refusal is the honest one.
            refusal = refusal or error
    raise refusal or BackendError(52, "no plan was found", lever="report this network")


def _silent(stage: str, done: float) -> None:
    """Progress that nobody watches."""


def compile_model(
    module: Module,
    march: March,
    options: CompileOptions,
    progress: Callable[[str, float], None] | None = None,
    stages: Stages = Stages(),
) -> Model:
    """The compiled model, planned by `stages`. Raises BackendError for options or layers that the march cannot serve."""
    _check(options, march)
    report = progress or _silent
    report("lower", 0.0)
    graph = lower(module, march)
    best: _Candidate | None = None
    # Several cores pay for every exchange of rows through shared memory: a small network may be faster on one of them.
    widths = (options.cores, 1) if options.opt == 2 and options.cores > 1 else (options.cores,)
    trials = [(pipeline, cores) for cores in widths for pipeline in _PIPELINES[options.opt]]
    for number, (pipeline, cores) in enumerate(trials):
        report("tile and schedule", number / len(trials))
        for found in _plans(graph, march, replace(options, cores=cores), stages, pipeline):
            best = _better(best, _candidate(module, graph, found, march, options), options)
    if best is None:
        raise BackendError(52, "no plan was found", lever="report this network")
    for transfer in _TRANSFERS[options.opt]:
        plan = best.plan
        tasks = stages.schedule(graph, plan, march, prefetch=True, transfer=transfer)
        try:
            addresses = stages.allocate(tasks, march, l2m_bytes=options.l2m_bytes)
        except BackendError:
            # Other lives may fragment L1M more; there is a plan that fits already.
            continue
        best = _better(best, _candidate(module, graph, (plan, tasks, addresses), march, options), options)
    report("tile and schedule", 1.0)
    return best.model


def _candidate(module: Module, graph: UnitGraph, found: _Plan, march: March, options: CompileOptions) -> _Candidate:
    plan, tasks, addresses = found
    model = _model(module, graph, plan, tasks, addresses, march, options)
    timing = simulate(model)
    return _Candidate(plan, tasks, addresses, model, timing.cycles, timing.ddr_read + timing.ddr_written)


def _better(best: _Candidate | None, found: _Candidate, options: CompileOptions) -> _Candidate:
    """The cheaper of two; the first one of equals."""
    return found if best is None or _cost(found, options) < _cost(best, options) else best


def _cost(candidate: _Candidate, options: CompileOptions) -> float:
    return candidate.cycles * options.balance + candidate.ddr_bytes * (100 - options.balance)


def _quantization(argument: Argument) -> Quantization | None:
    grid = argument.type.quant_info
    if grid is None:
        return None
    return Quantization(tuple(grid.scale_array.tolist()), tuple(grid.zero_point_array.tolist()), grid.per_axis)


def _tensor(argument: Argument, view: TensorView, address: int) -> Tensor:
    placed = View("DDR", view.dtype, view.shape, address + view.offset, view.strides)
    return Tensor(argument.name, placed, _quantization(argument), argument.desc)


def _tool_version() -> str:
    try:
        return version("hbir")
    except PackageNotFoundError:
        return "source"


def _placements(
    graph: UnitGraph, plan: TilePlan, march: March
) -> tuple[Mapping[str, str | int | float | bool | None], ...]:
    return tuple(
        {
            "layer": node.layer,
            "op": node.operation,
            "unit": node.unit,
            "reason": node.reason,
            "tiles": len(cut.tiles) * len(cut.chunks),
            "macs": node.macs,
            "dtype": node.out.dtype,
            "cycles": node_cycles(node, march),
        }
        for node, cut in zip(graph.nodes, plan.nodes, strict=True)
    )


def _model(
    module: Module,
    graph: UnitGraph,
    plan: TilePlan,
    tasks: Schedule,
    addresses: Addresses,
    march: March,
    options: CompileOptions,
) -> Model:
    program, constants = encode(tasks, addresses)
    program = program if options.debug else replace(program, layers=())
    function = module[0]
    where = {b.name: addresses.address[i] for i, b in enumerate(tasks.buffers) if b.kind == "input"}
    targets = {b.name: addresses.address[i] for i, b in enumerate(tasks.buffers) if b.kind == "output"}
    inputs = tuple(
        _tensor(a, view, where[name]) for a, (name, view) in zip(function.flatten_inputs, graph.inputs, strict=True)
    )
    outputs = tuple(
        _tensor(a, view, targets[name]) for a, (name, view) in zip(function.flatten_outputs, graph.outputs, strict=True)
    )
    memories = Memories(addresses.ddr, addresses.l1m, addresses.l2m, plan.cores, addresses.constants)
    return Model(
        graph.name,
        march,
        memories,
        inputs,
        outputs,
        memoryview(constants),
        program,
        HostSegment(graph.host_text, graph.host_constants) if graph.host_text else None,
        _placements(graph, plan, march) if options.debug else (),
        {"opt": options.opt, "balance": options.balance, "core_num": options.cores, "max_l2m_size": options.l2m_bytes},
        options.description,
        _tool_version(),
    )
