"""What every command shares: tables and JSON on stdout, progress and log lines on stderr, and errors as one paragraph.

Colours and moving bars appear on terminals only; elsewhere each stage is one plain line when it starts and one when it ends.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from hbir.errors import ConfigError, HbError
from tools.refusals import Refusal

__all__ = [
    "Advance",
    "Log",
    "command_errors",
    "print_coloured",
    "print_json",
    "print_lines",
    "print_table",
    "read_file_kind",
]

Advance = Callable[[float], None]
"""Reports the share of a stage that is done, 0 to 1."""

# Without a terminal nothing tells how wide a line may be; a table that is cut is worse than a long line.
_PLAIN_WIDTH = 240


def _console(*, stderr: bool = False) -> Any:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else _PLAIN_WIDTH)


# Names come from files of others and could otherwise steer the terminal; tab and newline are harmless.
_CONTROLS = dict.fromkeys((*range(9), *range(11, 32), *range(127, 160)), "�")


def _visible(text: str) -> str:
    return text.translate(_CONTROLS)


def print_lines(*lines: str) -> None:
    """Plain lines on stdout."""
    sys.stdout.write("".join(f"{_visible(line)}\n" for line in lines))


def print_coloured(lines: Iterable[tuple[str, str]]) -> None:
    """Lines on stdout, each with its style ("green", "bold", "" for none), which only a terminal shows."""
    if not sys.stdout.isatty():
        print_lines(*(text for text, _ in lines))
        return
    from rich.text import Text

    console = _console()
    for text, style in lines:
        console.print(Text(_visible(text), style=style), soft_wrap=True)


def print_json(value: Any) -> None:
    """A JSON document on stdout."""
    print_lines(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, stderr: bool = False) -> None:
    """A table on stdout (or stderr). A column whose name starts with ``#`` holds numbers and is aligned to the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(_visible(title)),
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        header_style="bold",
    )
    for column in columns:
        numeric = column.startswith("#")
        table.add_column(
            Text(_visible(column.lstrip("#"))), justify="right" if numeric else "left", no_wrap=numeric, overflow="fold"
        )
    for row in rows:
        # Text, not markup: names come from the user's file and may hold brackets.
        table.add_row(*(Text("" if cell is None else _visible(str(cell))) for cell in row))
    console, stream = _console(stderr=stderr), sys.stderr if stderr else sys.stdout
    if stream.isatty():
        console.print(table)
        return
    with console.capture() as captured:
        console.print(table)
    stream.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


class Log:
    """Stages of a command: a bar on a terminal, plain lines elsewhere, and everything in the log file, if there is one.

    The file gives seconds since the start rather than the time of day.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.stage_name = ""
        self._begin = time.perf_counter()
        self._file: IO[str] | None = None
        self._pending: list[str] = []
        self._terminal = sys.stderr.isatty() and not quiet

    def open(self, path: Path) -> None:
        """Write to `path` from now on, starting with what was logged so far. Raises ConfigError HB0801."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("w", encoding="utf-8")
        except OSError as error:
            blocked = isinstance(error, FileExistsError | NotADirectoryError)
            raise ConfigError(
                1,
                f"cannot write {path}",
                why="a file stands in place of the folder" if blocked else error.strerror or str(error),
                lever="choose an output folder you may write to",
            ) from None
        self._file.writelines(self._pending)
        self._pending.clear()

    @property
    def is_open(self) -> bool:
        """Whether there is a log file."""
        return self._file is not None

    def close(self) -> None:
        """Finish the log file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, level: str, text: str) -> None:
        line = f"{time.perf_counter() - self._begin:9.3f} s  {level:<7} {text}\n"
        if self._file is None:
            self._pending.append(line)
        else:
            self._file.write(line)
            self._file.flush()

    def debug(self, text: str) -> None:
        """A line for the log file only."""
        self._write("DEBUG", text)

    def info(self, text: str) -> None:
        """A line for the log file and stderr."""
        self._write("INFO", text)
        if not self.quiet:
            self._say(text)

    def warning(self, text: str) -> None:
        """A line that is shown even when the command is quiet."""
        self._write("WARNING", text)
        self._say(f"warning: {text}")

    def error(self, error: BaseException) -> None:
        """Note a failure in the log file; the command's boundary shows it."""
        if self.stage_name:
            self._write("ERROR", f"*** ERROR-OCCUR-DURING {self.stage_name} ***")
        self._write("ERROR", str(error) or type(error).__name__)

    def _say(self, text: str) -> None:
        text = _visible(text)
        if self._terminal:
            from rich.text import Text

            _console(stderr=True).print(Text(text), soft_wrap=True)
        else:
            sys.stderr.write(text + "\n")

    @contextmanager
    def stage(self, name: str, verb: str) -> Generator[Advance]:
        """Run a stage: `verb` as in "Start to `verb`." and "Successfully `verb`."; the value reports its progress."""
        self.stage_name = name
        self._write("INFO", f"Start to {verb}.")
        begin = time.perf_counter()
        if self._terminal:
            with self._bar(name) as advance:
                yield advance
        else:
            if not self.quiet:
                self._say(f"Start to {verb}.")
            yield lambda _: None
        done = f"Successfully {verb}. ({time.perf_counter() - begin:.2f} s)"
        self._write("INFO", done)
        if not self.quiet and not self._terminal:
            self._say(done)
        self.stage_name = ""

    @contextmanager
    def _bar(self, name: str) -> Generator[Advance]:
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description:<10}"), BarColumn(40), TaskProgressColumn(), TimeElapsedColumn())
        with Progress(*columns, console=_console(stderr=True)) as progress:
            task = progress.add_task(name, total=1.0)
            yield lambda done: progress.update(task, completed=min(max(done, 0.0), 1.0))
            progress.update(task, completed=1.0)


@contextmanager
def command_errors(log: Log | None = None, *, status: int = 1) -> Generator[None]:
    """Turn what a user can cause into one paragraph on stderr and exit `status`; Ctrl-C into 130, termination into 143."""
    previous = None
    if threading.current_thread() is threading.main_thread():
        # Without a handler a terminated process would leave its half-written files.
        previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except HbError as error:
        _fail(str(error), error, log, status)
    except BrokenPipeError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        wrapped = ConfigError(
            *(Refusal.SYSTEM, f"the system refused: {reason}"),
            where=str(error.filename or ""),
            lever="mend it and run again",
        )
        _fail(str(wrapped), wrapped, log, status)
    except Exception as error:
        # A fault of the compiler. With a log file the details go there; without one they must be seen.
        if log is None or not log.is_open:
            raise
        log.debug(traceback.format_exc())
        fault = ConfigError(
            *(Refusal.INTERNAL, f"internal error: {type(error).__name__}: {error}"),
            where=log.stage_name and f"stage '{log.stage_name}'",
            lever="this is a fault of the compiler: report it with hb_compile.log and the model",
        )
        _fail(str(fault), fault, log, status)
    except KeyboardInterrupt as error:
        if log is not None:
            log.error(error)
        sys.stderr.write("interrupted; nothing was written\n")
        sys.exit(130)
    finally:
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)
        if log is not None:
            log.close()


def _terminate(number: int, frame: object) -> None:
    sys.exit(128 + number)


def _fail(text: str, error: BaseException, log: Log | None, status: int) -> None:
    if log is not None:
        log.error(error)
    paragraph = _visible(" ".join(" ".join((text, *getattr(error, "__notes__", ()))).split()))
    if sys.stderr.isatty():
        from rich.text import Text

        _console(stderr=True).print(Text.assemble(("error ", "bold red"), paragraph), soft_wrap=True)
    else:
        sys.stderr.write(paragraph + "\n")
    sys.exit(status)


def read_file_kind(path: Path, kinds: Sequence[str]) -> str:
    """The suffix of an existing file, one of `kinds`. Raises ConfigError HB0817 for another one, HB0822 for no file."""
    kind = path.suffix.lower()
    if kind not in kinds:
        raise ConfigError(
            Refusal.FILE_KIND,
            f"{path.name} is not a file that this command takes",
            lever=f"give a {', '.join(kinds)} file",
        )
    if not path.is_file():
        why = "it is a folder" if path.is_dir() else "there is no such file"
        raise ConfigError(Refusal.FILE, f"{path} cannot be read", why=why, lever="check the path")
    return kind
