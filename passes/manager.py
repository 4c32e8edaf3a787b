"""Runs pipelines: text or objects in, a changed module out, with timing, printing, verification and reproducers."""

from __future__ import annotations

import difflib
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import iter_modules
from typing import ClassVar, Literal, TypeAlias, cast, get_args

from xdsl.utils.arg_spec import ArgSpecConvertible, parse_pipeline
from xdsl.utils.exceptions import VerifyException

import passes
from hbir.arguments import checked_path, shown
from hbir.errors import PassError
from hbir.ir.files import save_module
from hbir.module import Module, checked_module
from passes.debugging.equivalence import check_promise

__all__ = ["Pass", "PassReport", "Pipeline", "Promise", "available_passes", "check_choice", "load_pass"]


class Promise(Enum):
    """What a pass promises about the meaning of a module."""

    EXACT = "the same integers for all inputs"
    LAYOUT = "the same values, differently arranged"
    NUMERIC = "the same function up to stated rounding"


@dataclass(frozen=True)
class Pass(ArgSpecConvertible):
    """A named change of a module. Fields of the dataclass are its options; `name{option=value}` is its text form."""

    name: ClassVar[str]
    promise: ClassVar[Promise]

    @abstractmethod
    def run(self, module: Module) -> None:
        """Change `module` in place. Raises PassError."""


def check_choice(name: str, option: str, value: int, choices: Sequence[int]) -> None:
    """Raise PassError HB0304 unless an option of pass `name` is one of `choices`."""
    if value not in choices:
        shown = f"{min(choices)} to {max(choices)}" if isinstance(choices, range) else " or ".join(map(str, choices))
        raise PassError(4, f"options of '{name}' do not fit", why=f"{option} is {value}", lever=f"choose {shown}")


@cache
def available_passes() -> dict[str, Callable[[], type[Pass]]]:
    """Pass names with their loaders: one for each file of `passes`, and what entry points in `hbir.passes` add."""

    def own(module_name: str) -> Callable[[], type[Pass]]:
        return lambda: _pass_class(module_name)

    found: dict[str, Callable[[], type[Pass]]] = {}
    for info in iter_modules(passes.__path__):
        if not info.ispkg and info.name not in _ROADS:
            found[info.name.replace("_", "-")] = own(f"passes.{info.name}")
    for entry in sorted(entry_points(group="hbir.passes"), key=lambda e: e.name):
        if entry.name in found:
            raise PassError(1, f"two passes are called '{entry.name}'", lever=f"rename the one in {entry.value}")
        found[entry.name] = cast(Callable[[], type[Pass]], entry.load)
    return found


# Files that are no pass: what runs passes.
_ROADS = ("calibrate", "convert", "manager")


def _pass_class(module_name: str) -> type[Pass]:
    module = import_module(module_name)
    classes = [
        c for c in vars(module).values() if isinstance(c, type) and issubclass(c, Pass) and c.__module__ == module_name
    ]
    return classes[0]


def load_pass(name: str) -> type[Pass]:
    """The class of the named pass. Raises PassError HB0302 for an unknown name."""
    loaders = available_passes()
    if name not in loaders:
        close = difflib.get_close_matches(str(name), loaders, 3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"known passes: {', '.join(sorted(loaders))}"
        raise PassError(2, f"there is no pass '{name}'", lever=hint)
    return loaders[name]()


def _parse(text: str) -> tuple[Pass, ...]:
    try:
        specs = list(parse_pipeline(text))
    except BaseException as error:  # xDSL's ArgSpecParseError derives from BaseException
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        reason = str(error).strip().splitlines()[-1]
        raise PassError(
            3, f"'{text}' is not a pipeline", why=reason, lever="write pass-a,pass-b{option=value}"
        ) from None
    result: list[Pass] = []
    for spec in specs:
        try:
            result.append(load_pass(spec.name).from_spec(spec))
        except (ValueError, TypeError) as error:
            raise PassError(
                4,
                f"options of '{spec.name}' do not fit",
                why=str(error),
                lever=f"see `hbir-opt --list-passes` for the options of {spec.name}",
            ) from None
    return tuple(result)


def _steps(given: object) -> tuple[Pass, ...]:
    steps: tuple[object, ...] = tuple(cast(Iterable[object], given)) if isinstance(given, Iterable) else (given,)
    for step in steps:
        if not isinstance(step, Pass):
            lever = "give the text of a pipeline, or a list of passes such as [DeadCode()]"
            raise PassError(3, f"{shown(step)} is not a pass", lever=lever)
    return cast(tuple[Pass, ...], steps)


@dataclass(frozen=True)
class PassReport:
    """What one pass of a run did: seconds, and the number of operations before and after."""

    name: str
    seconds: float
    before: int
    after: int


Verification: TypeAlias = Literal["none", "structure", "exec"]


@dataclass
class Pipeline:
    """Passes in order. `run` leaves its argument alone and returns the changed copy.

    verify: `structure` checks types and order after each pass, `exec` also runs the module before and after it on
    generated inputs and holds the pass to its promise. `observer` is called after each pass with its report and the module.
    With `reproducer`, a failing pass leaves a folder with module, pipeline and one command.
    """

    passes: str | Sequence[Pass]
    verify: Verification = "structure"
    observer: Callable[[Pass, PassReport, Module], None] | None = None
    reproducer: Path | None = None
    reports: list[PassReport] = field(default_factory=list[PassReport])

    def __post_init__(self) -> None:
        self.steps: tuple[Pass, ...] = _parse(self.passes) if isinstance(self.passes, str) else _steps(self.passes)
        if self.verify not in get_args(Verification):
            lever = f"choose one of {', '.join(get_args(Verification))}"
            raise PassError(7, f"verify is {shown(self.verify)}", lever=lever)
        if self.observer is not None and not callable(self.observer):
            raise PassError(7, f"observer is {shown(self.observer)}", lever="give a function, or leave it out")
        if self.reproducer is not None:
            self.reproducer = checked_path(
                self.reproducer,
                lambda given, why: PassError(7, f"reproducer is {given}", why=why, lever="give the path of a folder"),
            )

    def __str__(self) -> str:
        return ",".join(str(step.spec()) for step in self.steps)

    def run(self, module: Module) -> Module:
        """The module after all passes. Raises PassError, or what a pass raises; IrError HB0236 for what is no module."""
        work = checked_module(module).clone()
        self.reports.clear()
        for index, step in enumerate(self.steps):
            before = work.clone() if self.verify == "exec" or self.reproducer else None
            count, start = _count(work), time.perf_counter()
            try:
                step.run(work)
                if self.verify != "none":
                    work.verify()
                if self.verify == "exec" and before is not None:
                    check_promise(step.name, step.promise.name, before, work)
            except Exception as error:
                if self.reproducer is not None and before is not None:
                    _write_reproducer(self.reproducer, before, self.steps[index:])
                if isinstance(error, VerifyException):
                    what = f"pass '{step.name}' cannot build an operation"
                    raise PassError(6, what, why=str(error), lever="report it with the reproducer folder") from error
                raise
            report = PassReport(step.name, time.perf_counter() - start, count, _count(work))
            self.reports.append(report)
            if self.observer is not None:
                self.observer(step, report, work)
        return work


def _count(module: Module) -> int:
    return sum(len(function.operations) for function in module)


def _write_reproducer(folder: Path, module: Module, steps: Iterable[Pass]) -> None:
    pipeline = ",".join(str(step.spec()) for step in steps)
    save_module(module.op, module.constants, folder / "module.mlir")
    (folder / "command.txt").write_text(f"hbir-opt module.mlir -p '{pipeline}'\n")
