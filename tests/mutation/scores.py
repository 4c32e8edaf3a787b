"""The figures of a run, the file that keeps them, and the reviewed list of mutants that change nothing."""

from __future__ import annotations

import datetime as dt
import json
import os
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.mutation.mutants import Mutant
from tests.mutation.runner import Verdict

__all__ = ["Score", "equivalents", "is_listed", "read_scores", "scored", "write_json", "write_scores"]

_FOLDER = Path(__file__).parent
_KEYS = {"file", "function", "line", "becomes", "reason"}


@dataclass(frozen=True, slots=True)
class Score:
    """Numbers of mutants of one file; `equivalent` are those on the reviewed list."""

    group: str
    file: str
    mutants: int
    killed: int
    equivalent: int
    date: str

    @property
    def raw(self) -> float:
        """Percent killed of all."""
        return 100.0 * self.killed / self.mutants

    @property
    def share(self) -> float:
        """Percent killed of those that are not on the list."""
        return 100.0 * self.killed / (self.mutants - self.equivalent)

    @staticmethod
    def sum(title: str, scores: Sequence[Score]) -> Score:
        """The scores of several files as one."""
        mutants, killed = sum(s.mutants for s in scores), sum(s.killed for s in scores)
        return Score(title, "", mutants, killed, sum(s.equivalent for s in scores), max(s.date for s in scores))


def equivalents() -> list[dict[str, str]]:
    """The reviewed list: file, function, line, what it becomes, and the reason why nothing observable changes."""
    found = tomllib.loads((_FOLDER / "equivalent.toml").read_text(encoding="utf-8"))["equivalent"]
    for entry in found:
        if set(entry) != _KEYS or not all(isinstance(value, str) for value in entry.values()):
            raise ValueError(f"an entry of equivalent.toml has other keys than {', '.join(sorted(_KEYS))}: {entry}")
    return found


def is_listed(file: str, mutant: Mutant, entries: Iterable[dict[str, str]]) -> bool:
    """Whether a mutant is one of the entries."""
    mine = (file, mutant.function, mutant.before, mutant.after)
    return any(mine == (e["file"], e["function"], e["line"], e["becomes"]) for e in entries)


def scored(group: str, file: str, verdicts: Sequence[Verdict], entries: Sequence[dict[str, str]]) -> Score:
    """The figures of one file."""
    listed = sum(is_listed(file, verdict.mutant, entries) for verdict in verdicts)
    killed = sum(bool(verdict.killer) for verdict in verdicts)
    return Score(group, file, len(verdicts), killed, listed, dt.date.today().isoformat())


def read_scores() -> list[Score]:
    """What `score.json` keeps."""
    return [Score(**row) for row in json.loads((_FOLDER / "score.json").read_text(encoding="utf-8"))]


def write_scores(new: Iterable[Score]) -> None:
    """Replace the rows of the files that were judged."""
    known = {score.file: score for score in read_scores()} if (_FOLDER / "score.json").exists() else {}
    known |= {score.file: score for score in new}
    write_json(_FOLDER / "score.json", [asdict(score) for score in known.values()])


def write_json(path: Path, value: object) -> None:
    """Write aside and rename."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    aside.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    aside.replace(path)
