"""hbir-reduce: shrinks a module while a command, or the failure of a pipeline, says that it is still interesting."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from tools.modules import input_shapes

if TYPE_CHECKING:
    from hbir.errors import HbError
    from hbir.module import Module
    from tools.console import Log

__all__ = ["main"]

_EXAMPLES = """\b
Examples:
  hbir-reduce module.bc --test './crashes.sh {}' -o small.mlir
  hbir-reduce module.mlir --test 'hbir-opt {} -p my-pass 2>&1 | grep -q HB0306' -o small.mlir
  hbir-reduce model.onnx -p 'fold-constants,fold-batch-norm' --fails HB0305 -o small.mlir
  hbir-reduce module.mlir -p my-pass -o small.mlir             (whatever failure it has at the start)

\b
The command of --test is run by the shell, with the path of a candidate in place of {} (at the end, without one); exit status 0
means that the candidate is still interesting. Ctrl-C ends the search; with -o the smallest module so far is written.
"""


_SAID = 300
"""Bytes of what a command said last."""


class _Command:
    """A predicate: the exit status of a shell command that is given the path of the candidate."""

    def __init__(self, command: str, path: Path, seconds: float) -> None:
        quoted = shlex.quote(str(path))
        self.command = command.replace("{}", quoted) if "{}" in command else f"{command} {quoted}"
        self.path, self.seconds, self.first, self.outcome = path, seconds, True, ""
        self._said = ""

    def __call__(self, module: Module) -> bool:
        from hbir.errors import ConfigError
        from hbir.module import save
        from tools.refusals import Refusal

        save(module, self.path)
        status = self._run()
        if self.first and status in (126, 127):
            why = f"the shell gives {status}"
            raise ConfigError(Refusal.VALUE, "the command of --test cannot be run", why=why, lever="check its path")
        if self.first:
            self.outcome = f"takes longer than {self.seconds:g} s" if status is None else f"exits with {status}"
        self.first = False
        return status == 0

    def refusal(self, file: Path) -> HbError:
        """Why there is nothing to reduce, once the whole module was not interesting."""
        from hbir.errors import PassError

        what = (
            f"the command of --test {self.outcome} for the whole of {file.name}, as it does for what is not interesting"
        )
        lever = "give a command that exits with 0 for this module; {} in it is the path of the candidate"
        why = f"it was run as: {self.command}" + (f"; it said: {self._said}" if self._said else "")
        return PassError(50, what, why=why, lever=lever)

    def _run(self) -> int | None:
        """The exit status; None after a command that took too long. What the first run says may tell why it is no use."""
        import os
        import tempfile

        # No pipe: it could be full, or be held open by what the command started.
        with tempfile.TemporaryFile() if self.first else Path(os.devnull).open("wb") as errors:
            status = self._wait(errors)
            if self.first:
                length = errors.seek(0, os.SEEK_END)
                errors.seek(max(0, length - _SAID))
                said = " ".join(errors.read().decode(errors="replace").split()).rstrip(".")
                self._said = "…" + said if length > _SAID else said
        return status

    def _wait(self, errors: IO[bytes]) -> int | None:
        import os
        import signal
        import subprocess

        # A session of its own, so that whatever the command started ends with it.
        process = subprocess.Popen(
            self.command,
            shell=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
        try:
            return process.wait(self.seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


class _Failing:
    """A predicate: a pipeline, held to its promises, fails with a code or an exception; without one, as it did at first."""

    def __init__(self, pipeline: str, wanted: str | None) -> None:
        from passes import Pipeline

        self.pipeline, self.wanted = Pipeline(pipeline, verify="exec"), wanted
        self.first: str | None = None
        self.outcome = ""

    def __call__(self, module: Module) -> bool:
        from hbir.errors import HbError
        from passes.debugging.stages import FAILURES, failure

        try:
            self.pipeline.run(module)
        except FAILURES as error:
            told = error.code if isinstance(error, HbError) else type(error).__name__
            self.outcome = self.outcome or f"fails with {told}"
            if self.wanted is not None:
                return self.wanted == told
            self.first = self.first or failure(error)
            return failure(error) == self.first
        self.outcome = self.outcome or "passes"
        return False

    def refusal(self, file: Path) -> HbError:
        """Why there is nothing to reduce, once the whole module was not interesting."""
        from hbir.errors import PassError

        where, why = f"on the whole of {file.name}", "each pass was held to its promise on generated inputs"
        if self.wanted is not None:
            what = f"the pipeline {self.outcome} {where}, and --fails asks for {self.wanted}"
            return PassError(50, what, why=why, lever="leave out --fails, or give the failure that there is")
        lever = (
            "give a module and a pipeline that fail; where only certain inputs show it, give --test a command such as "
            "'hbir-opt {} -p … --verify exec --feeds inputs.npz' that exits with 0 when the failure is there"
        )
        return PassError(50, f"the pipeline '{self.pipeline}' {self.outcome} {where}", why=why, lever=lever)


def _operations(module: Module) -> int:
    return sum(len(function.operations) for function in module)


def _write(module: Module, output: Path | None) -> None:
    from hbir.module import save
    from tools.console import print_lines

    if output is None:
        print_lines(str(module).rstrip("\n"))
    else:
        save(module, output)


def _report(before: int, module: Module, tests: int, output: Path | None) -> dict[str, Any]:
    found: dict[str, Any] = {"operations before": before, "operations": _operations(module), "tests": tests}
    return found | ({"module": str(module)} if output is None else {"output": str(output)})


def _shrink(
    file: Path, module: Module, predicate: _Command | _Failing, simplify: bool, output: Path | None, log: Log
) -> tuple[Module, int]:
    """The reduced module, and how many were tested. What stops the search with `output` given leaves the smallest so far."""
    from hbir.errors import PassError
    from passes.debugging.reduce import reduce

    smallest, tests, count = module, 0, _operations(module)

    def smaller(candidate: Module, tested: int) -> None:
        nonlocal smallest, tests, count
        smallest, tests = candidate, tested
        if _operations(candidate) != count:
            count = _operations(candidate)
            log.info(f"{count} operations after {tested} tests")

    def counted(candidate: Module) -> bool:
        nonlocal tests
        tests += 1
        return predicate(candidate)

    try:
        return reduce(module, counted, simplify=simplify, progress=smaller), tests
    except PassError as error:
        if error.code != "HB0350":
            raise
        raise predicate.refusal(file) from None
    except (KeyboardInterrupt, SystemExit) as stopped:
        if output is None:
            raise
        _write(smallest, output)
        log.warning(
            f"stopped after {tests} tests; {output} holds the smallest so far, {_operations(smallest)} operations"
        )
        sys.exit(130 if isinstance(stopped, KeyboardInterrupt) else stopped.code)


@click.command(epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--test", metavar="COMMAND", help="A shell command that exits with 0 for what is interesting.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=60.0, show_default=True, metavar="SECONDS",
              help="A candidate on which the command takes longer is not interesting.")  # fmt: skip
@click.option("-p", "--pipeline", help="In place of a command: run these passes, held to their promises.")
@click.option("--fails", metavar="CODE", help="The failure of the pipeline: HB0305, or an exception's name.")
@click.option("--cut-only", is_flag=True, help="Only take away: links of chains, numbers and shapes stay.")
@input_shapes
@click.option("-o", "--output", type=click.Path(path_type=Path),
              help="Write the module instead of printing it: .bc, or .mlir with .weights beside it.")  # fmt: skip
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
@click.option("--json", "as_json", is_flag=True, help="What was done as JSON on stdout.")
def main(
    file: Path, test: str | None, timeout: float, pipeline: str | None, fails: str | None, cut_only: bool,
    shapes: tuple[tuple[str, str], ...], output: Path | None, quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """Shrink FILE, a module (.bc, .mlir) or an .onnx model, while --test or a failing pipeline says that it is interesting.

    Operations are cut out (what reads them gets inputs), then outputs and inputs, then links of chains; constants become zeros
    or ones, and axes get shorter. The result verifies, and nothing of it can go alone. The same input gives the same result.
    """
    from tools.console import Log, command_errors, print_json

    log = Log(quiet=quiet)
    with command_errors():
        import tempfile

        from hbir.errors import ConfigError
        from tools.modules import load_module
        from tools.refusals import Refusal

        if (test is None) == (pipeline is None) or (fails is not None and pipeline is None):
            what = "give --test COMMAND, or -p PIPELINE and perhaps --fails CODE"
            raise ConfigError(Refusal.MISSING, what, lever="see hbir-reduce --help")
        module = load_module(file, shapes)
        _check_output(output)
        with tempfile.TemporaryDirectory(prefix="hbir-reduce-") as folder:
            kind = (output or file).suffix
            path = Path(folder) / f"candidate{'.mlir' if kind == '.onnx' else kind}"
            predicate = _Failing(pipeline, fails) if pipeline is not None else _Command(test or "", path, timeout)
            log.info(f"{_operations(module)} operations at the start")
            small, tests = _shrink(file, module, predicate, not cut_only, output, log)
        if output is not None or not as_json:
            _write(small, output)
        if as_json:
            print_json(_report(_operations(module), small, tests, output))
        else:
            log.info(f"{_operations(small)} of {_operations(module)} operations are left after {tests} tests")


def _check_output(output: Path | None) -> None:
    """A search of minutes must not end with a name that no module can have. Raises ConfigError HB0817."""
    from hbir.errors import ConfigError
    from hbir.ir.files import MODULE_SUFFIXES
    from tools.refusals import Refusal

    if output is not None and output.suffix not in MODULE_SUFFIXES:
        lever = f"choose a name that ends in {' or '.join(MODULE_SUFFIXES)}"
        raise ConfigError(Refusal.FILE_KIND, f"{output.name} is no name of a module", lever=lever)


if __name__ == "__main__":
    main()
