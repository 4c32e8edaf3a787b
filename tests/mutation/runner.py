"""Runs tests against mutants, one forked process for each.

A mutant inside a function is put into a process that has imported and collected everything (`patching`), which costs a
moment. What shows on import (defaults, constants) is put into a process that has imported nothing of this project: it
imports every module afresh, the mutated one from its changed source. A mutant is judged by the tests that run its
lines, the quickest first, up to the first that fails. A test that takes twice the processor time that it took under a
tracer counts as failed, and so does a process that dies.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import IO, Any

import _pytest
import pytest
from hypothesis import Phase, settings

from tests.mutation.mutants import Mutant
from tests.mutation.patching import Patches

__all__ = ["Survey", "Verdict", "judge", "survey", "warm_up"]

_WARM = (
    "cmd", "code", "faulthandler", "getpass", "hypothesis.extra.numpy",
    "hypothesis.internal.conjecture.engine", "hypothesis.stateful", "mmap", "mpmath", "networkx", "numba", "numpy",
    "onnx", "pdb", "readline", "tomllib", "xdsl.dialects.arith", "xdsl.dialects.func", "xdsl.dialects.tosa",
    "xdsl.parser", "xdsl.pattern_rewriter", "yaml",
)  # fmt: skip
_OPTIONS = ("-q", "--tb=no", "--no-header", "--no-summary", "-p", "no:cacheprovider", "-p", "no:faulthandler",
            "-p", "no:unraisableexception")  # fmt: skip
_COLLECTION_SECONDS = 20.0
_MEMORY = 4 << 30


@dataclass(frozen=True, slots=True)
class Survey:
    """What the tests do without a mutant: `seconds` of processor time of each, and who runs which line of which file.

    "" stands for what runs on import."""

    seconds: Mapping[str, float]
    lines: Mapping[str, frozenset[tuple[str, int]]]

    def within(self, places: Sequence[str]) -> Survey:
        """What is known of the tests in some files and folders."""
        inside = {test for test in self.seconds if any(test.startswith((f"{p}::", f"{p}/")) for p in places)}
        lines = {test: self.lines[test] for test in ("", *inside)}
        return Survey({test: seconds for test, seconds in self.seconds.items() if test in inside}, lines)

    def shows_on_import(self, file: str, mutant: Mutant) -> bool:
        """Whether a mutant changes what is done before the first test."""
        return mutant.runs is None or not self.lines[""].isdisjoint((file, line) for line in mutant.runs)

    def tests_of(self, file: str, mutant: Mutant) -> list[str]:
        """The tests that run the mutant's lines, the quickest first; all of them when it shows on import."""
        everywhere = self.shows_on_import(file, mutant)
        wanted = {(file, line) for line in mutant.runs or ()}
        chosen = [test for test in self.seconds if everywhere or not wanted.isdisjoint(self.lines[test])]
        return sorted(chosen, key=lambda test: (self.seconds[test], test))


@dataclass(frozen=True, slots=True)
class Verdict:
    """`killer` is the test that failed, or what else happened; "" for a mutant that survived."""

    mutant: Mutant
    killer: str


def warm_up() -> None:
    """Import what children need and what no mutant changes. Compiled kernels of mutants go to a folder of their own."""
    folder = os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp(prefix="mutation-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)  # children leave without it
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    for name in (*_WARM, *(f"_pytest.{each.name}" for each in pkgutil.iter_modules(_pytest.__path__))):
        importlib.import_module(name)
    gc.disable()  # children live for a second, and a collection would copy the parent's pages
    gc.freeze()


class _Mutated(MetaPathFinder, Loader):
    """Serves one module from changed source."""

    def __init__(self, name: str, code: CodeType) -> None:
        self._name, self._code = name, code

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None:
            spec.loader = self
        return spec

    def exec_module(self, module: ModuleType) -> None:
        exec(self._code, module.__dict__)


Answer = Callable[[dict[str, Any]], None]
"""Tells the parent the result; the process ends there."""


class _Quick:
    """Hypothesis looks for examples that fail, not for small ones: whether a test fails is all that counts."""

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self) -> None:
        phases = (Phase.explicit, Phase.generate)
        settings.register_profile("mutation", parent=settings.default, phases=phases)
        settings.load_profile("mutation")


class _Judge(_Quick):
    """Runs the chosen tests in their order, each within its time, and answers with the first that fails."""

    def __init__(self, chosen: Mapping[str, float], answer: Answer) -> None:
        self.chosen, self.answer = chosen, answer

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        known = {item.nodeid: item for item in items}
        if not known.keys() >= self.chosen.keys():  # the parameters of a test come from what is mutated
            self.answer({"killer": "collection"})
        items[:] = [known[test] for test in self.chosen]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self, nodeid: str) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0.5 + 2.0 * self.chosen[nodeid])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.answer({"killer": report.nodeid})

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        self.answer({"killer": "import" if exitstatus else ""})


class _Server(_Judge):
    """Collects the tests once and judges in children of this process, one line of JSON for each mutant in `pipe`."""

    def __init__(
        self, file: str, jobs: Sequence[_Job], chosen: Mapping[str, float], workers: int, pipe: IO[str]
    ) -> None:
        super().__init__(chosen, lambda _: None)
        self._file, self._jobs, self._workers, self._pipe = file, jobs, workers, pipe

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        patches = Patches([self._file])
        gc.freeze()

        def work(job: _Job, answer: Answer) -> None:
            self.chosen, self.answer = job.chosen, answer
            _limit()
            if not patches.apply(self._file, job.mutant.source):
                answer({"killer": None})
            for test in job.chosen:
                items[test].config.hook.pytest_runtest_protocol(item=items[test], nextitem=None)
            answer({"killer": ""})

        for job, killer in _pool(self._jobs, work, self._workers):
            self._pipe.write(f"{json.dumps([job.number, killer])}\n")
            self._pipe.flush()
        os._exit(0)


class _Observer(_Quick):
    """Times every test and notes the lines of `files` that it runs ("" for those that are run on import), or, without
    files, only whether it fails: tracing is slow, and a test may have a limit of time."""

    def __init__(self, files: Sequence[str], answer: Answer) -> None:
        self._answer = answer
        self._files = {str(Path(file).resolve()): file for file in files}
        self._seconds: dict[str, float] = {}
        self._lines: dict[str, set[tuple[str, int]]] = {"": set()}
        self._now = self._lines[""]
        self._failed: list[str] = []
        self._patches: Patches | None = None

    def trace(self, frame: FrameType, event: str, _: object) -> Any:
        """For `sys.settrace`."""
        file = self._files.get(frame.f_code.co_filename)
        if file is None:
            return None

        def within(frame: FrameType, event: str, _: object) -> Any:
            self._now.add((file, frame.f_lineno))
            return within

        return within(frame, event, None)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        self._now = self._lines[item.nodeid] = set()
        if self._files:
            self._patches = self._patches or Patches(())
            self._patches.clear_caches()
            sys.settrace(self.trace)
        begin = time.process_time()
        result = yield
        sys.settrace(None)
        self._seconds[item.nodeid] = time.process_time() - begin
        return result

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> None:
        if self._files:
            sys.settrace(self.trace)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._failed.append(report.nodeid)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        lines = {test: sorted(each) for test, each in self._lines.items()}
        self._answer({"code": int(exitstatus), "failed": self._failed, "seconds": self._seconds, "lines": lines})


def _forked(work: Callable[[Answer], object]) -> tuple[int, int]:
    """Process and pipe of a child that does `work`, which answers once as JSON; a child that does not is broken."""
    readable, writable = os.pipe()
    process = os.fork()
    if process:
        os.close(writable)
        return process, readable

    def answer(found: dict[str, Any]) -> None:
        with os.fdopen(writable, "w") as pipe:
            json.dump(found, pipe)
        os._exit(0)

    try:
        silent = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silent, stream)
        work(answer)
    finally:
        os._exit(1)


def _observed(files: Sequence[str], tests: Sequence[str]) -> dict[str, Any]:
    def work(answer: Answer) -> None:
        pytest.main([*_OPTIONS, *tests], plugins=[_Observer(files, answer)])

    process, pipe = _forked(work)
    with os.fdopen(pipe) as file:
        text = file.read()
    os.waitpid(process, 0)
    found: dict[str, Any] = json.loads(text) if text else {"code": 3}
    if found["code"] not in (0, 1):
        raise RuntimeError(f"the tests cannot be run without a mutant: exit code {found['code']}")
    return found


def survey(files: Sequence[str], tests: Sequence[str]) -> Survey:
    """Run the tests once without a mutant. Raises RuntimeError when one fails: nothing could be said about mutants."""
    found = _observed(files, tests)
    if found["failed"] and (wrong := _observed((), found["failed"])["failed"]):
        raise RuntimeError(f"the tests do not pass without a mutant: {', '.join(wrong)}")
    lines = {test: frozenset((file, line) for file, line in each) for test, each in found["lines"].items()}
    return Survey(found["seconds"], lines)


@dataclass(frozen=True, slots=True)
class _Job:
    """A mutant, its place, and the tests that judge it with their seconds, the quickest first."""

    number: int
    mutant: Mutant
    chosen: Mapping[str, float]


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.setitimer(signal.ITIMER_PROF, _COLLECTION_SECONDS)


def _afresh(file: str, job: _Job, answer: Answer) -> None:
    """Import everything with the mutant and run its tests."""
    _limit()
    name = file.removesuffix(".py").replace("/", ".")
    sys.meta_path.insert(0, _Mutated(name, compile(job.mutant.source, str(Path(file).resolve()), "exec")))
    tests = dict.fromkeys(test.split("::")[0] for test in job.chosen)
    pytest.main([*_OPTIONS, *tests], plugins=[_Judge(job.chosen, answer)])


def _pool(
    jobs: Iterable[_Job], work: Callable[[_Job, Answer], None], workers: int
) -> Iterator[tuple[_Job, str | None]]:
    """Each job with its killer, in the order in which they are decided. Raises RuntimeError for a child that is silent."""
    running: dict[int, tuple[int, _Job]] = {}
    waiting = list(jobs)[::-1]
    while waiting or running:
        while waiting and len(running) < workers:
            job = waiting.pop()
            process, pipe = _forked(partial(work, job))
            running[process] = (pipe, job)
        process, status = os.wait()
        pipe, job = running.pop(process)
        with os.fdopen(pipe) as answer:
            text = answer.read()
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            yield job, "timeout" if number == signal.SIGPROF else signal.Signals(number).name
        elif text:
            yield job, json.loads(text)["killer"]
        else:
            raise RuntimeError(f"nothing is known of the mutant {job.mutant.before} -> {job.mutant.after}")


def _serve(file: str, jobs: Sequence[_Job], workers: int) -> Iterator[tuple[_Job, str | None]]:
    readable, writable = os.pipe()
    chosen = {test: seconds for job in jobs for test, seconds in job.chosen.items()}
    tests = dict.fromkeys(test.split("::")[0] for test in chosen)

    def work(_: Answer) -> None:
        os.close(readable)
        with os.fdopen(writable, "w") as pipe:
            pytest.main([*_OPTIONS, *tests], plugins=[_Server(file, jobs, chosen, workers, pipe)])

    process, silent = _forked(work)
    os.close(writable)
    os.close(silent)
    by_number = {job.number: job for job in jobs}
    with os.fdopen(readable) as lines:
        for line in lines:
            number, killer = json.loads(line)
            yield by_number.pop(number), killer
    os.waitpid(process, 0)
    if by_number:
        raise RuntimeError(f"nothing is known of {len(by_number)} mutants of {file}")


def judge(file: str, mutants: Sequence[Mutant], known: Survey, workers: int = 1) -> Iterator[Verdict]:
    """What becomes of each mutant of a file, in the order in which they are decided."""
    quick, slow = list[_Job](), list[_Job]()
    for number, mutant in enumerate(mutants):
        chosen = {test: known.seconds[test] for test in known.tests_of(file, mutant)}
        if not chosen:
            yield Verdict(mutant, "")
        else:
            (slow if known.shows_on_import(file, mutant) else quick).append(_Job(number, mutant, chosen))
    if quick:
        for job, killer in _serve(file, quick, workers):
            if killer is None:
                slow.append(job)
            else:
                yield Verdict(job.mutant, killer)
    for job, killer in _pool(slow, partial(_afresh, file), workers):
        yield Verdict(job.mutant, killer or "")
