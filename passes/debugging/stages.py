"""Stages of a way through the compiler, and the judge that holds one to its promise on given inputs.

A stage is a pass, or anything else that makes something runnable of a module: calibration, or a compiler with its simulator.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias, cast

import numpy as np
from xdsl.utils.exceptions import VerifyException

from hbir.dialects.base import Array
from hbir.errors import HbError
from hbir.ir.text import ESCAPING
from hbir.module import Function, Module
from passes.debugging.conditioning import rounding
from passes.debugging.differences import FLOAT_TOLERANCE, relative_differences
from passes.debugging.equivalence import Feeds
from passes.debugging.recorded import beyond_record
from passes.manager import Pass, Pipeline, Promise, pass_text

__all__ = [
    "FAILURES",
    "Arrays",
    "Element",
    "Results",
    "Runnable",
    "RunnableFunction",
    "Stage",
    "Verdict",
    "as_stages",
    "failure",
    "judge",
]

Arrays: TypeAlias = Mapping[str, Array]
"""Inputs or outputs by name."""

Results: TypeAlias = Mapping[str, Sequence[Arrays]]
"""For each function its outputs, one entry for each of its input sets."""

FAILURES = (HbError, VerifyException, *ESCAPING)
"""What a stage, or running what it made, raises when it fails."""


class RunnableFunction(Protocol):
    """A function of a module, or of a binary."""

    @property
    def name(self) -> str:
        """The function's name."""
        ...

    def feed(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Named outputs for named inputs."""
        ...


class Runnable(Protocol):
    """What a stage makes: a Module, with which the next stage goes on, or something else that runs."""

    def __iter__(self) -> Iterator[RunnableFunction]:
        """The functions."""
        ...


@dataclass(frozen=True)
class Stage:
    """A step on the way from one module to the next, and what it promises.

    `run` leaves its module alone, and raises one of `FAILURES` when it fails. It is given the input sets of the first function
    too: calibration needs some.
    """

    text: str
    promise: Promise
    run: Callable[[Module, Feeds], Runnable]

    @property
    def name(self) -> str:
        """The text without options."""
        return self.text.partition("{")[0]

    def allowed(self, tolerance: float, *, floats: bool) -> float:
        """The difference that an output may have, relative to its largest value; `tolerance` is for those that round."""
        if self.promise in (Promise.NUMERIC, Promise.RECORDED):
            return tolerance
        return FLOAT_TOLERANCE if self.promise is Promise.LAYOUT and floats else 0.0


def _pass_stage(step: Pass) -> Stage:
    def run(module: Module, feeds: Feeds) -> Module:
        del feeds
        work = module.clone()
        step.run(work)
        work.verify()
        return work

    return Stage(pass_text(step), step.promise, run)


def as_stages(given: object) -> list[Stage]:
    """The stages of a pipeline's text, or of a list of texts, passes and stages. Raises what `Pipeline` raises."""
    several = isinstance(given, Iterable) and not isinstance(given, str)
    parts: list[object] = list(cast("Iterable[object]", given)) if several else [given]
    stages: list[Stage] = []
    for part in parts:
        # What is no text and no pass either, the pipeline refuses.
        stages += [part] if isinstance(part, Stage) else map(_pass_stage, Pipeline([cast("str", part)]).steps)
    return stages


def failure(error: BaseException) -> str:
    """What makes two failures the same one: the code of an error for users, or the type and place of another one."""
    if isinstance(error, HbError):
        return error.code
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} in {frames[-1].name}" if frames else type(error).__name__


@dataclass(frozen=True)
class Element:
    """One number of an output that came out otherwise than expected."""

    output: str
    index: tuple[int, ...]
    expected: float | int | bool
    actual: float | int | bool


@dataclass(frozen=True)
class Verdict:
    """What running a stage showed: its worst output. `kind` is the sort of failure, empty when there is none."""

    kind: str = ""
    what: str = ""
    function: str = ""
    feed: Arrays | None = None
    """The input set on which it showed."""
    difference: float = 0.0
    """Relative to the largest value of the output; infinite where one side is NaN or infinite. Of an operation that was looked
    at alone (`kind` is "record"): in steps of its result."""
    allowed: float = 0.0
    element: Element | None = None
    made: Runnable | None = None
    results: Results | None = None
    """What the stage's product gave, where all of it ran, or where it is what it was made from and that is known."""

    def rank(self) -> tuple[bool, float]:
        """Failures are worse than differences that are allowed."""
        return bool(self.kind), self.difference


def judge(
    stage: Stage, module: Module, feeds: Mapping[str, Feeds], tolerance: float, expected: Results | None = None
) -> Verdict:
    """Run a stage over a module and compare what both give on the input sets of each function.

    `expected` are the module's results, where they are known. A stage that changes nothing is right, and nothing runs. Raises
    what running the module itself raises.
    """
    try:
        made = stage.run(module, next(iter(feeds.values()), ()))
    except FAILURES as error:
        return Verdict(failure(error), str(error) or type(error).__name__)
    if isinstance(made, Module) and made.op.is_structurally_equivalent(module.op):
        return Verdict(allowed=stage.allowed(tolerance, floats=True), made=made, results=expected)
    if expected is None:
        expected = {function.name: [function.feed(feed) for feed in feeds[function.name]] for function in module}
    functions = {function.name: function for function in made}
    if list(functions) != list(expected):
        return Verdict("functions", f"the functions {list(expected)} became {list(functions)}", made=made)
    verdicts, results = list[Verdict](), {name: list[Arrays]() for name in functions}
    for name, function in functions.items():
        for feed, wanted in zip(feeds[name], expected[name], strict=True):
            try:
                actual = function.feed(feed)
            except FAILURES as error:
                what = f"what it made does not run: {error}"
                return Verdict(f"running: {failure(error)}", what, name, feed, made=made)
            results[name].append(actual)
            verdicts += _compared(stage, module[name], wanted, actual, feed, tolerance)
    if stage.promise is Promise.RECORDED and isinstance(made, Module):
        verdicts += _alone(stage, module, made, feeds)
    return replace(max(verdicts, key=Verdict.rank, default=Verdict()), made=made, results=results)


def _alone(stage: Stage, module: Module, made: Module, feeds: Mapping[str, Feeds]) -> Iterator[Verdict]:
    """A verdict for each operation that the stage replaced and that is further off than it records."""

    def run(piece: Module) -> Module:
        return cast(Module, stage.run(piece, ()))

    for found in beyond_record(module, made, run, feeds):
        if found.steps > found.allowed:
            what = f"'{found.output}' alone is off by {found.steps:g} steps; it records {found.allowed:g}"
            element = Element(found.output, found.index, found.expected, found.actual)
            yield Verdict("record", what, found.function, found.feed, found.steps, found.allowed, element)


def _compared(
    stage: Stage, before: Function, expected: Arrays, actual: Arrays, feed: Arrays, tolerance: float
) -> Iterator[Verdict]:
    """A verdict for each output."""
    function = before.name
    if list(expected) != list(actual):
        yield Verdict("outputs", f"the outputs {list(expected)} became {list(actual)}", function, feed)
        return
    for name, wanted in expected.items():
        got = actual[name]
        if (wanted.dtype, wanted.shape) != (got.dtype, got.shape):
            types = [f"{array.dtype}{list(array.shape)}" for array in (wanted, got)]
            yield Verdict("outputs", f"output '{name}' became {types[1]} from {types[0]}", function, feed)
            continue
        relative = relative_differences(wanted, got)
        difference = float(relative.max(initial=0.0))
        floats = np.issubdtype(wanted.dtype, np.floating)
        allowed = stage.allowed(tolerance, floats=floats)
        if stage.promise is Promise.LAYOUT and floats and allowed < difference < np.inf:
            largest = float(np.abs(wanted[np.isfinite(wanted)].astype(np.float64)).max(initial=1e-30))
            allowed = max(allowed, rounding(before, feed)[name] / largest)
        kind, what, element = "", "", None
        if difference:
            index = tuple(int(i) for i in np.unravel_index(int(relative.argmax()), relative.shape))
            element = Element(name, index, wanted[index].item(), got[index].item())
        if difference > allowed:
            kind = "values"
            what = f"output '{name}' is off by {difference:.3g} of its largest value; {allowed:.3g} is allowed"
        yield Verdict(kind, what, function, feed, difference, allowed, element)
