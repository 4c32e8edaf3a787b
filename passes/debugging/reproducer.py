"""What a failing step leaves behind: a folder from which one command makes it fail again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from hbir.dialects.base import Array
from hbir.feeds import write_feed
from hbir.ir.files import write_text
from hbir.module import Module, save

__all__ = ["INPUTS", "MODULE", "TRACE", "write_reproducer"]

MODULE, INPUTS, TRACE = "module.bc", "inputs.npz", "trace.html"
"""What the files of the folder, and a trace that its command is to write, are called there."""


def write_reproducer(
    folder: Path,
    module: Module,
    command: Sequence[str],
    error: BaseException,
    inputs: Mapping[str, Array] | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Write `module.bc`, `command.txt`, `error.txt` and, with inputs, `inputs.npz` into a folder, over what lies there.

    `module` is what the failing step was given; `notes` are further lines of `error.txt`; `command` names the files by
    `MODULE` and `INPUTS` and is run in the folder.
    Raises ConfigError HB0801 when the folder cannot be written.
    """
    save(module, folder / MODULE)
    if inputs is not None:
        write_feed(folder / INPUTS, inputs)
    write_text(folder / "command.txt", f"{shlex.join(command)}\n")
    write_text(folder / "error.txt", "".join(f"{line}\n" for line in (f"{type(error).__name__}: {error}", *notes)))
