"""hbir-reduce: shrinks a module while a command, or the failure of a pipeline, says that it is still interesting."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tools.modules import input_shapes

if TYPE_CHECKING:
    from hbir.module import Module
    from passes.debugging.reduce import Predicate
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


class _Command:
    """A predicate: the exit status of a shell command that is given the path of the candidate."""

    def __init__(self, command: str, path: Path, seconds: float, log: Log) -> None:
        quoted = shlex.quote(str(path))
        self.command = command.replace("{}", quoted) if "{}" in command else f"{command} {quoted}"
        self.path, self.seconds, self.log, self.first = path, seconds, log, True

    def __call__(self, module: Module) -> bool:
        from hbir.errors import ConfigError
        from hbir.module import save
        from tools.refusals import Refusal

        save(module, self.path)
        status = self._run()
        if self.first and status in (126, 127):
            why = f"the shell gives {status}"
            raise ConfigError(Refusal.VALUE, "the command of --test cannot be run", why=why, lever="check its path")
        if self.first and status != 0:
            self.log.info("--test: it took too long" if status is None else f"--test: exit status {status}")
        self.first = False
        return status == 0

    def _run(self) -> int | None:
        """The exit status; None after a command that took too long."""
        import os
        import signal
        import subprocess

        # A session of its own, so that whatever the command started ends with it.
        process = subprocess.Popen(
            self.command,
            shell=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
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

    def __call__(self, module: Module) -> bool:
        from hbir.errors import HbError
        from passes.debugging.stages import FAILURES, failure

        try:
            self.pipeline.run(module)
        except FAILURES as error:
            if self.wanted is not None:
                return self.wanted == (error.code if isinstance(error, HbError) else type(error).__name__)
            self.first = self.first or failure(error)
            return failure(error) == self.first
        return False


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


def _shrink(module: Module, predicate: Predicate, simplify: bool, output: Path | None, log: Log) -> tuple[Module, int]:
    """The reduced module, and how many were tested. What stops the search with `output` given leaves the smallest so far."""
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
@click.option("--cut-only", is_flag=True, help="Only take away; leave out no links of chains, and no numbers.")
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
    or ones. The result verifies, and nothing of it can go alone. The same input gives the same result.
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
            predicate = _Failing(pipeline, fails) if pipeline is not None else _Command(test or "", path, timeout, log)
            log.info(f"{_operations(module)} operations at the start")
            small, tests = _shrink(module, predicate, not cut_only, output, log)
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
