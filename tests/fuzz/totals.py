"""What fuzzing has come to so far: counts of every run added up, and the bugs that were found and fixed, in one file.

The README shows the table between two markers; a test compares it with the file. A run adds to the file at its end; several
commands may do so at one time.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.archives import write_atomically

__all__ = ["BEGIN", "END", "TOTALS", "Bug", "add", "add_bug", "bugs", "counts", "readme_table", "replace_table"]

TOTALS = Path(__file__).with_name("totals.json")
"""Where the totals are kept."""

BEGIN, END = "<!-- fuzz totals: begin -->", "<!-- fuzz totals: end -->"
"""Lines of the README between which `readme_table` stands."""

_HEADER = (
    "| what is fuzzed | inputs | of them refused with a code | operations | hours | bugs found and fixed |",
    "|---|---|---|---|---|---|",
)


@dataclass(frozen=True)
class Bug:
    """A bug that fuzzing of a `kind` found and that is fixed: one line on what was wrong, and the test that holds it off."""

    kind: str
    what: str
    test: str


@contextmanager
def _changing(path: Path) -> Generator[dict[str, Any]]:
    """The content of the file, written back at the end; other commands wait meanwhile."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        content = _read(path)
        yield content
        text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        write_atomically(path, lambda partial: partial.write_text(text, "utf-8"))
    finally:
        os.close(folder)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8")) if path.exists() else {"bugs": [], "counts": {}}


def add(kind: str, counts: Mapping[str, int | float], path: Path = TOTALS) -> None:
    """Add the counts of a run to those of its kind: `modules`, `passes`, or one reader such as `reader: onnx`.

    The table shows `inputs` (all of them), `refused` (those of the inputs that ended in an error with a code), `operations`
    (where inputs have any) and `seconds`; other names are kept in the file.
    """
    with _changing(path) as content:
        kept: dict[str, float] = content["counts"].setdefault(kind, {})
        for name, value in counts.items():
            kept[name] = round(kept.get(name, 0) + value, 1) if isinstance(value, float) else kept.get(name, 0) + value


def add_bug(kind: str, what: str, test: str, path: Path = TOTALS) -> None:
    """Note a bug that is fixed. `test` is pytest's id of its regression test, such as tests/hbir/test_x.py::test_y."""
    with _changing(path) as content:
        found = {"kind": kind, "what": what, "test": test}
        if found not in content["bugs"]:
            content["bugs"].append(found)


def counts(path: Path = TOTALS) -> dict[str, dict[str, float]]:
    """The totals of every kind."""
    return _read(path)["counts"]


def bugs(path: Path = TOTALS) -> list[Bug]:
    """The bugs in the order in which they were noted."""
    return [Bug(**bug) for bug in _read(path)["bugs"]]


def readme_table(path: Path = TOTALS) -> str:
    """The lines of the README between the markers: one row for each kind."""
    found, known = bugs(path), counts(path)
    rows = [
        f"| {kind} | {_number(total, 'inputs')} | {_number(total, 'refused')} | {_number(total, 'operations')} "
        f"| {total.get('seconds', 0) / 3600:.1f} | {sum(bug.kind == kind for bug in found)} |"
        for kind, total in sorted({**{bug.kind: {} for bug in found}, **known}.items())
    ]
    return "\n".join((*_HEADER, *rows))


def _number(total: Mapping[str, float], name: str) -> str:
    return f"{int(total[name]):,}" if name in total else ""


def replace_table(text: str, table: str) -> str:
    """`text` with what stands between the markers replaced. Raises ValueError when they are not there once, in order."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"the text has no {BEGIN} followed by {END}")
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}"
