"""Runs pipelines: text or objects in, a changed module out, with timing, printing, verification and reproducers."""

from __future__ import annotations

import difflib
import re
import sys
import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field, fields
from enum import Enum
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import iter_modules
from typing import ClassVar, Literal, TextIO, TypeAlias, cast, get_args

from xdsl.utils.arg_spec import ArgSpecConvertible, parse_pipeline
from xdsl.utils.exceptions import VerifyException

import passes
from hbir.arguments import shown
from hbir.dialects.base import Array
from hbir.errors import IrError, PassError
from hbir.module import Module, checked_module
from passes.common.option_text import option_text, same_option
from passes.common.option_types import misfit
from passes.common.pipeline_options import (
    checked_choice,
    checked_feeds,
    checked_flag,
    checked_names,
    checked_stream,
    optional_path,
)
from passes.common.provenance import changes_tagged
from passes.debugging.equivalence import Feeds, check_promise, generated_feeds
from passes.debugging.printing import Printer
from passes.debugging.reproducer import INPUTS, MODULE, TRACE, write_reproducer
from passes.debugging.trace import Trace

__all__ = ["Pass", "PassReport", "Pipeline", "Promise", "available_passes", "check_choice", "load_pass", "pass_text"]


class Promise(Enum):
    """What a pass promises about the meaning of a module."""

    EXACT = "the same integers for all inputs"
    LAYOUT = "the same values, differently arranged"
    RECORDED = "the same function, each result within the error that its operation records"
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
    """The class of the named pass. Raises PassError HB0302 for an unknown name, HB0308 for what cannot be loaded."""
    loaders = available_passes()
    if name not in loaders:
        close = difflib.get_close_matches(str(name), loaders, 3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"known passes: {', '.join(sorted(loaders))}"
        raise PassError(2, f"there is no pass '{name}'", lever=hint)
    what, lever = f"pass '{name}' cannot be loaded", "mend or uninstall the package that brings it"
    try:
        found = cast(object, loaders[name]())
    except Exception as error:  # whatever the package of somebody else raises while it is imported
        raise PassError(8, what, why=f"{type(error).__name__}: {error}", lever=lever) from error
    if not (isinstance(found, type) and issubclass(found, Pass)):
        raise PassError(8, what, why="its entry point is no class of passes", lever=lever)
    return found


def _complete(step: Pass) -> Pass:
    """A pass that says what each has to say. Raises PassError HB0308, and HB0304 for options of other types."""
    kind, name, promise = type(step).__name__, getattr(step, "name", None), getattr(step, "promise", None)
    if not isinstance(name, str) or not name:
        lever = 'write `name: ClassVar[str] = "my-pass"` in the class'
        raise PassError(8, f"the pass {kind} has no name", why=f"its name is {shown(name)}", lever=lever)
    if not isinstance(promise, Promise):
        lever = f"write `promise: ClassVar[Promise] = Promise.{Promise.EXACT.name}`, or another of {list(Promise.__members__)}"
        raise PassError(8, f"pass '{name}' makes no promise", why=f"its promise is {shown(promise)}", lever=lever)
    if (found := misfit(step)) is not None:
        option, kind = found[0], getattr(found[1], "__name__", str(found[1]))
        why = f"{option} is {shown(getattr(step, option))}"
        raise PassError(4, f"options of '{name}' do not fit", why=why, lever=f"give a value of the type {kind}")
    return step


def _steps(given: object) -> tuple[Pass, ...]:
    """The passes of a text, or of a list of passes and texts."""
    if isinstance(given, str):
        return _parse(given)
    parts: tuple[object, ...] = tuple(cast(Iterable[object], given)) if isinstance(given, Iterable) else (given,)
    steps: list[Pass] = []
    for part in parts:
        if isinstance(part, Pass):
            steps.append(part)
        elif isinstance(part, str):
            steps += _parse(part)
        else:
            lever = "give the text of a pipeline, or a list of passes such as [DeadCode(), 'canonicalize']"
            raise PassError(3, f"{shown(part)} is not a pass", lever=lever)
    return tuple(map(_complete, steps))


def _parse(text: str) -> tuple[Pass, ...]:
    try:
        specs = list(parse_pipeline(re.sub(r",\s+", ",", text.strip())))
    except BaseException as error:  # xDSL's ArgSpecParseError derives from BaseException
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
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


@dataclass(frozen=True)
class PassReport:
    """What one pass of a run did."""

    name: str
    seconds: float
    before: int
    """Operations before the pass, and after it."""
    after: int
    kinds: Mapping[str, int] = field(default_factory=dict[str, int])
    """Operation name -> how many more (or, below zero, fewer) there are; kinds whose number stayed are left out."""
    module: Module | None = None
    """The module after the pass, when snapshots were asked for."""

    @property
    def summary(self) -> str:
        """Time and operations in one line."""
        kinds = "".join(f", {kind} {count:+d}" for kind, count in self.kinds.items())
        return f"{1000 * self.seconds:.1f} ms, {self.before} -> {self.after} operations{kinds}"

    def __str__(self) -> str:
        return f"{self.name}: {self.summary}"


Verification: TypeAlias = Literal["none", "structure", "exec"]
Observer: TypeAlias = Callable[[Pass, PassReport, Module], None]


@dataclass
class Pipeline:
    """Passes in order. `run` leaves its argument alone and returns the changed copy.

    passes: the text of a pipeline, or a list of passes and texts.
    verify: `structure` checks types and order after each pass, `exec` also runs the module before and after it on
    `feeds` (input sets by name; generated inputs where there is none, as in an empty list) and holds it to its promise.
    observer: called after each pass with its report and the module.
    reproducer: a folder in which any failure leaves module, inputs, pipeline and one command: that of a pass, of the
    observer, of printing or of the trace.
    print_after: names of passes, or True for all, behind which the module is printed to `stream` (stderr);
    print_after_change: only where a pass changed it. snapshots: each report keeps the module as the pass left it.
    trace: an HTML file that shows, pass by pass, what each changed; also written when a pass fails.

    After a run `reports` holds one `PassReport` for each pass: seconds, operations before and after, by kind.
    """

    passes: str | Sequence[Pass | str]
    verify: Verification = "structure"
    observer: Observer | None = None
    reproducer: Path | None = None
    feeds: Feeds = field(default=(), kw_only=True)
    print_after: bool | Collection[str] = field(default=(), kw_only=True)
    print_after_change: bool = field(default=False, kw_only=True)
    stream: TextIO | None = field(default=None, kw_only=True)
    snapshots: bool = field(default=False, kw_only=True)
    trace: Path | None = field(default=None, kw_only=True)
    reports: list[PassReport] = field(default_factory=list[PassReport], init=False)

    def __post_init__(self) -> None:
        self.steps: tuple[Pass, ...] = _steps(self.passes)
        self.verify = cast(Verification, checked_choice("verify", self.verify, get_args(Verification)))
        if self.observer is not None and not callable(self.observer):
            raise PassError(7, f"observer is {shown(self.observer)}", lever="give a function, or leave it out")
        self.reproducer = optional_path("reproducer", self.reproducer, "give the path of a folder")
        self.trace = optional_path("trace", self.trace, "give the path of an HTML file")
        self.feeds = checked_feeds(self.feeds)
        self.print_after = checked_names(self.print_after, [step.name for step in self.steps])
        self.print_after_change = checked_flag("print_after_change", self.print_after_change)
        self.stream = checked_stream(self.stream)
        self.snapshots = checked_flag("snapshots", self.snapshots)

    def __str__(self) -> str:
        return _text(self.steps)

    def run(self, module: Module) -> Module:
        """The module after all passes. Raises PassError, or what a pass raises; IrError HB0236 for what is no module."""
        work = checked_module(module).clone()
        self.reports.clear()
        watchers = self._watchers(work)
        trace = None if self.trace is None else Trace(work.clone())
        try:
            for index, step in enumerate(self.steps):
                with self._reproducible(module, index):
                    report = self._run_step(step, work)
                self.reports.append(report)
                note = f"pass '{step.name}' ran; what failed is an observer, or printing, which the command lacks"
                with self._reproducible(module, index, note=note):
                    for watch in watchers:
                        watch(step, report, work)
                if trace is not None:
                    with self._reproducible(module, index, "--trace", TRACE):
                        trace.add(pass_text(step), f"{report.summary}; promises {step.promise.value}", work)
        except Exception as error:
            if trace is not None and self.trace is not None:
                with _noted(error, "there is no trace"):
                    trace.write(self.trace)
            raise
        if trace is not None and self.trace is not None:
            with self._reproducible(module, 0, "--trace", TRACE):
                trace.write(self.trace)
        return work

    def _run_step(self, step: Pass, work: Module) -> PassReport:
        before = work.clone() if self.verify == "exec" else None
        counts, start = _counts(work), time.perf_counter()
        try:
            with changes_tagged(work, step.name):
                step.run(work)
        except VerifyException as error:
            what, lever = f"pass '{step.name}' cannot build an operation", "report it with the reproducer folder"
            raise PassError(6, what, why=str(error), lever=lever) from error
        seconds = time.perf_counter() - start
        if self.verify != "none":
            self._check_structure(step, work)
        if before is not None:
            check_promise(step.name, step.promise.name, before, work, self.feeds, step.run)
        after = _counts(work)
        kinds = {k: after[k] - counts[k] for k in sorted({*counts, *after}) if after[k] != counts[k]}
        snapshot = work.clone() if self.snapshots else None
        return PassReport(step.name, seconds, counts.total(), after.total(), kinds, snapshot)

    def _check_structure(self, step: Pass, work: Module) -> None:
        try:
            work.verify()
        except IrError as error:
            what = f"pass '{step.name}' left a module that does not verify"
            why = f"{error.code}: {error.what}" + (f"; {error.why}" if error.why else "")
            lever = "report it with the reproducer folder"
            raise PassError(6, what, where=error.where, why=why, lever=lever) from error

    def _watchers(self, module: Module) -> list[Observer]:
        watchers = [] if self.observer is None else [self.observer]
        if self.print_after or self.print_after_change:
            named = None if self.print_after is True else cast(Collection[str], self.print_after)
            text = str(module) if self.print_after_change else ""
            show = Printer(self.stream or sys.stderr, named, self.print_after_change, text)
            watchers.append(lambda step, report, work: show(step.name, report.before, report.after, work))
        return watchers

    @contextmanager
    def _reproducible(self, module: Module, failing: int, *flags: str, note: str = "") -> Generator[None]:
        """On any failure leave the reproducer folder, for the steps from number `failing` on."""
        try:
            yield
        except Exception as error:
            if self.reproducer is not None:
                with _noted(error, "there is no reproducer"):
                    self._reproduce(self.reproducer, module, failing, error, flags, [note] if note else [])
            raise

    def _reproduce(
        self, folder: Path, module: Module, failing: int, error: Exception, flags: Sequence[str], notes: Sequence[str]
    ) -> None:
        """Write what the failing step was given: passes are deterministic, so those before it are run once more."""
        work, left = module.clone(), self.steps[failing:]
        try:
            for step in self.steps[:failing]:
                step.run(work)
        except Exception:  # noqa: BLE001 - an observer had changed the module, say: then everything is run again
            work, left = module, self.steps
        command = ["hbir-opt", MODULE, "-p", _text(left), "--verify", self.verify, *flags]
        # Each of several functions is run on inputs generated for it.
        inputs = self._failing_feed(left[:1], work) if len(work) == 1 else None
        command = command if inputs is None else [*command, "--feeds", INPUTS]
        write_reproducer(folder, work, command, error, inputs, [*notes, *filter(None, map(_foreign, left))])

    def _failing_feed(self, steps: Sequence[Pass], module: Module) -> Mapping[str, Array]:
        """The input set on which the first of the steps breaks its promise; the first one for any other failure."""
        feeds = self.feeds or generated_feeds(module[0])
        for feed in feeds if self.verify == "exec" else ():
            work = module.clone()
            try:
                for step in steps:
                    step.run(work)
                    work.verify()
                    check_promise(step.name, step.promise.name, module, work, [feed], step.run)
            except PassError:
                return feed
            except Exception:  # noqa: BLE001 - the pass itself fails, whatever the inputs
                break
        return feeds[0]


@contextmanager
def _noted(error: Exception, what: str) -> Generator[None]:
    """Add a failure to the notes of an earlier one: what went wrong first is what the user is to hear of."""
    try:
        yield
    except Exception as later:  # noqa: BLE001 - raised in place of the first it would hide it
        error.add_note(f"{what}: {later}")


def pass_text(step: Pass) -> str:
    """`name{option=value}` with the options that are not as by default; the pipeline parser reads it back.

    An option that has no text (a table of grids, say) is shown by its type, as in `grids=<dict>`, which no parser takes.
    """
    given = {f.name: getattr(step, f.name) for f in fields(step) if f.init}
    standard = {f.name: f.default if f.default_factory is MISSING else f.default_factory() for f in fields(step)}
    options = [
        name.replace("_", "-") + ("" if value is None else f"={option_text(value)}")
        for name, value in given.items()
        if not same_option(value, standard[name])
    ]
    return f"{step.name}{{{' '.join(options)}}}" if options else step.name


def _text(steps: Iterable[Pass]) -> str:
    return ",".join(map(pass_text, steps))


def _foreign(step: Pass) -> str:
    """What keeps hbir-opt from running a pass; "" for nothing."""
    if step.name not in available_passes() or load_pass(step.name) is not type(step):
        return f"hbir-opt does not know '{step.name}': it needs an entry point"
    try:
        _parse(pass_text(step))
    except PassError:
        return f"options of '{step.name}' have no text: build the pipeline in Python"
    return ""


def _counts(module: Module) -> Counter[str]:
    return Counter(op.name for function in module for op in function.operations)
