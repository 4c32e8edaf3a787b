"""Finds out where a result turns wrong: the stage of a pipeline, then the operation, then the element of its tensor.

Each stage is judged alone: what it makes against what it was given, on the same inputs. The module in front of the first one
that fails is cut down to the smallest piece on which it still fails, fed with the values that the whole network has there. The
failure needs all of the piece, so that the operation which makes its wrong output is the first one whose value is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from xdsl.ir import Operation

from hbir.arguments import checked_number
from hbir.dialects.base import Array
from hbir.dialects.hbir import ConstantOp
from hbir.errors import PassError
from hbir.ir.locations import layer_name
from hbir.module import Function, Module, checked_module
from passes.debugging.differences import ROUNDING_TOLERANCE
from passes.debugging.equivalence import Feeds, generated_inputs
from passes.debugging.recorded import all_values
from passes.debugging.reduce import reduce, value_names
from passes.debugging.stages import FAILURES, Arrays, Element, Results, Stage, Verdict, as_stages, judge
from passes.manager import Pass, Promise

__all__ = ["Bisection", "Element", "Fault", "Judgement", "Stage", "bisect"]

SAMPLES = 3
"""Generated input sets for each function when none are given."""

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Judgement:
    """How a stage did: its largest difference, relative to the largest value of that output, and what is allowed."""

    stage: str
    promise: Promise
    difference: float
    """Infinite where one side is NaN or infinite, and where the results cannot be compared."""
    allowed: float
    failed: str = ""
    """What is wrong; empty when it kept its promise."""
    unit: str = ""
    """"steps" where one operation was looked at alone: the numbers are steps of its result."""


@dataclass(frozen=True)
class Fault:
    """What is wrong, and where, with the smallest case that shows it."""

    stage: str
    number: int
    """The stage's place among all of them, from 0."""
    promise: Promise
    what: str
    function: str
    layer: str
    """The first layer whose value is wrong; of a stage that raised, the last layer of the case."""
    operation: str
    """The kind of the operation there, before the stage."""
    made: str
    """The kind of the operation that takes its place; empty when there is none."""
    element: Element | None
    """The worst element of the case's output; None for a stage that raised, or that changed what the outputs are."""
    case: Module
    """The smallest piece of the module on which the stage fails."""
    feeds: tuple[Arrays, ...]
    """The inputs of the case: one set, or as many as were given where one alone does not show the fault."""
    tests: int
    """How many pieces were tried."""

    @property
    def layers(self) -> list[str]:
        """The layers of the case: the failure needs all of them."""
        operations = [op for function in self.case for op in function.operations]
        return [layer_name(op) for op in operations if not _is_constant(op)] or [layer_name(op) for op in operations]


@dataclass(frozen=True)
class Bisection:
    """How the stages did, up to the first that failed, and the fault; None where all kept their promises."""

    judged: tuple[Judgement, ...]
    fault: Fault | None = None


def bisect(
    module: Module,
    stages: str | Pass | Stage | Iterable[str | Pass | Stage],
    feeds: Sequence[Mapping[str, Array]] = (),
    *,
    tolerance: float = ROUNDING_TOLERANCE,
    tolerances: Mapping[str, float] = MappingProxyType({}),
    progress: Progress | None = None,
) -> Bisection:
    """Run `stages` (the text of a pipeline, or a list of texts, passes and stages) over a module, and find the first fault.

    A stage fails when it raises, makes no valid module, changes names or types of outputs, or changes a value by more than it
    promises: EXACT: at all; LAYOUT: floats by 1e-4; NUMERIC: by `tolerance`, or that of its name in `tolerances`. All are
    relative to the largest value of the output; NaN or infinity on one side only is always wrong. RECORDED is as NUMERIC, and
    each operation that was replaced is looked at alone: it may be off by the steps it records. `feeds` are input sets of a
    module with one function, by name; without any, three are generated for each function. `progress` is called with what is
    done and its share, 0 to 1: of the stages first, then of the operations that are cut away.
    Raises PassError HB0352 for a tolerance or feeds that do not fit, what `Pipeline` raises for what is no pipeline, and what
    running the module itself raises.
    """
    say = progress or _silent
    steps = as_stages(stages)
    limits = {name: _checked_tolerance(limit) for name, limit in {"": tolerance, **tolerances}.items()}
    if unknown := set(tolerances) - {step.name for step in steps}:
        what = f"there is a tolerance for '{min(unknown)}', which is no stage"
        raise PassError(52, what, lever=f"choose one of {', '.join(dict.fromkeys(step.name for step in steps))}")
    current = checked_module(module)
    inputs = _inputs(current, feeds)
    judged: list[Judgement] = []
    # Before the first stage: inputs that do not fit are to be told even where no stage changes anything.
    results: Results | None = {f.name: [f.feed(feed) for feed in inputs[f.name]] for f in current}
    for number, stage in enumerate(steps):
        say(stage.text, number / len(steps))
        limit = limits.get(stage.name, limits[""])
        verdict = judge(stage, current, inputs, limit, results)
        comparable = not verdict.kind or verdict.element is not None
        difference = verdict.difference if comparable else np.inf
        unit = "steps" if verdict.kind == "record" else ""
        judged.append(Judgement(stage.text, stage.promise, difference, verdict.allowed, verdict.what, unit))
        if verdict.kind:
            return Bisection(tuple(judged), _fault(number, stage, current, inputs, verdict, limit, say))
        if not isinstance(verdict.made, Module):
            break
        current, results = verdict.made, verdict.results
    return Bisection(tuple(judged))


def _silent(text: str, share: float) -> None:
    del text, share


def _checked_tolerance(tolerance: object) -> float:
    lever = "give a share of the largest value, such as 0.1"
    number = checked_number(tolerance, lambda given, why: PassError(52, f"tolerance is {given}", why=why, lever=lever))
    if not number >= 0:
        raise PassError(52, f"tolerance is {number:g}", why="it is at least 0", lever=lever)
    return number


def _inputs(module: Module, feeds: Feeds) -> dict[str, Feeds]:
    """The input sets of each function."""
    if not feeds:
        return {function.name: [generated_inputs(function, seed) for seed in range(SAMPLES)] for function in module}
    if len(module) != 1:
        what = f"there are inputs for one function, and the module has {len(module)}"
        raise PassError(52, what, lever="leave the inputs out, or save the function alone")
    return {module[0].name: feeds}


def _is_constant(op: Operation) -> bool:
    return isinstance(op, ConstantOp)


def _fault(
    number: int, stage: Stage, module: Module, inputs: Mapping[str, Feeds], found: Verdict, limit: float, say: Progress
) -> Fault:
    """Cut the module down to the smallest piece on which the stage fails in the same way, and of NUMERIC stages by half as
    much at least."""
    shown = {function.name: [inputs[function.name][0]] for function in module}
    if found.feed is not None:
        shown[found.function] = [found.feed]
    if judge(stage, module, shown, limit).kind != found.kind:
        shown = dict(inputs)  # calibration, say, does something else on a part of its data
    values = {f.name: [all_values(f, feed) for feed in shown[f.name]] for f in module}
    total, tests = max(_size(module), 1), 0
    rounds = stage.promise in (Promise.NUMERIC, Promise.RECORDED)
    judged = rounds and found.kind == "values"
    whole = judge(stage, module, shown, limit)
    # Of a piece as much is asked as the whole shows, half of its difference at least.
    wanted, share = whole.difference / 2, min(_share_read(whole, limit), 1.0)

    def fed(piece: Module) -> dict[str, Feeds]:
        return {f.name: [{a.name: known[a.name] for a in f.flatten_inputs} for known in values[f.name]] for f in piece}

    def fails(piece: Module) -> bool:
        nonlocal tests
        tests += 1
        try:
            verdict = judge(stage, piece, fed(piece), limit)
        except FAILURES:  # the piece itself does not run
            return False
        if not judged or verdict.kind != found.kind:
            return verdict.kind == found.kind
        return verdict.difference >= wanted and _share_read(verdict, limit) >= share

    def smaller(piece: Module, tested: int) -> None:
        say(f"{_size(piece)} operations after {tested} tests", 1 - _size(piece) / total)

    case = reduce(module, fails, simplify=False, progress=smaller)
    verdict = judge(stage, case, fed(case), limit)
    layer, operation, made = _guilty(case, verdict)
    function = verdict.function or case[0].name
    feeds = tuple(fed(case)[function])
    return Fault(
        *(stage.text, number, stage.promise, verdict.what, function, layer, operation, made),
        *(verdict.element, case, feeds, tests),
    )


def _size(module: Module) -> int:
    return sum(len(function.operations) for function in module)


def _share_read(verdict: Verdict, limit: float) -> float:
    """How far the worst element is off, in units of the share `limit` of the largest value that the piece reads.

    The difference of two large values is small: beside it their rounding, which the network forgives, is a large share. Below 1
    an error may be that.
    """
    element = verdict.element
    if element is None or not np.isfinite(verdict.difference):
        return np.inf
    read = [np.abs(x[np.isfinite(x)].astype(np.float64)).max(initial=0.0) for x in (verdict.feed or {}).values()]
    allowed = limit * max(read, default=0.0)
    return abs(float(element.expected) - float(element.actual)) / allowed if allowed else np.inf


def _guilty(case: Module, verdict: Verdict) -> tuple[str, str, str]:
    """Layer and kind of the operation that makes the wrong output, and the kind of what takes its place."""
    if verdict.element is None:
        last = [op for function in case for op in function.operations if not _is_constant(op)][-1:]
        return (layer_name(last[0]), last[0].name, "") if last else ("", "", "")
    made = verdict.made[verdict.function] if isinstance(verdict.made, Module) else None
    before, after = (None if f is None else _maker(f, verdict.element.output) for f in (case[verdict.function], made))
    name = "" if after is None else after.name
    return (verdict.element.output, "", name) if before is None else (layer_name(before), before.name, name)


def _maker(function: Function, output: str) -> Operation | None:
    """The operation that makes an output, or a value of `value_names`; None when that is an input."""
    values = {name: value for value, name in value_names(function).items()}
    values |= {argument.name: argument.value for argument in function.flatten_outputs}
    owner = values[output].owner if output in values else None
    return owner if isinstance(owner, Operation) else None
