"""The totals of fuzzing: added up, shown by the README, and every bug with a test that exists."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.totals import BEGIN, END, add, add_bug, bugs, counts, readme_table, replace_table

ROOT = Path(__file__).resolve().parents[2]


def test_counts_add_up(tmp_path: Path) -> None:
    path = tmp_path / "totals.json"
    add("modules", {"inputs": 10, "refused": 1, "seconds": 1800.0}, path)
    add("modules", {"inputs": 1234, "operations": 7, "seconds": 1800.0}, path)
    add("reader: onnx", {"inputs": 5}, path)
    add_bug("modules", "wrong", "tests/test_x.py::test_y", path)
    add_bug("modules", "wrong", "tests/test_x.py::test_y", path)
    assert counts(path)["modules"] == {"inputs": 1244, "refused": 1, "seconds": 3600.0, "operations": 7}
    assert [bug.what for bug in bugs(path)] == ["wrong"]
    assert readme_table(path).splitlines()[2:] == [
        "| modules | 1,244 | 1 | 7 | 1.0 | 1 |",
        "| reader: onnx | 5 |  |  | 0.0 | 0 |",
    ]
    assert [entry.name for entry in tmp_path.iterdir()] == ["totals.json"]


def test_the_table_goes_between_the_markers() -> None:
    assert replace_table(f"a\n{BEGIN}\nold\n{END}\nb", "new") == f"a\n{BEGIN}\nnew\n{END}\nb"
    for text in ("", BEGIN, f"{END}{BEGIN}", f"{BEGIN}{END}{END}"):
        with pytest.raises(ValueError, match="has no"):
            replace_table(text, "new")


def test_the_readme_shows_the_totals() -> None:
    """`python -m tests.fuzz table --write README.md` makes it so."""
    text = (ROOT / "README.md").read_text("utf-8")
    assert replace_table(text, readme_table()) == text


def test_every_bug_has_its_regression_test() -> None:
    found = bugs()
    assert found
    for bug in found:
        assert bug.kind in counts() and bug.what
        path, name = bug.test.split("::")
        assert f"def {name}(" in (ROOT / path).read_text("utf-8"), bug.test
