"""The mutants of a source, what judges them, and the two files that are kept beside the code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.mutation.__main__ import main
from tests.mutation.mutants import mutants_of
from tests.mutation.scores import Score, equivalents, is_listed, read_scores
from tests.mutation.targets import GROUPS

SOURCE = '''
"""A docstring."""
from __future__ import annotations
LIMIT: int = 8

def clamp(x: int, *, low: int = 0) -> int:
    """Another: 1 + 1."""
    if x < low or not x:
        raise ValueError(f"{x - 1} is below {low}")
    return min(x, LIMIT)[1:]
'''


def changes(source: str) -> set[tuple[str, str]]:
    return {(mutant.function, mutant.after) for mutant in mutants_of(source)}


def test_every_kind_of_change_and_none_of_texts() -> None:
    assert changes(SOURCE) == {
        ("", "LIMIT: int = 9"),
        ("", "LIMIT: int = (7)"),
        ("clamp", "def clamp(x: int, *, low: int = 1) -> int:"),
        ("clamp", "def clamp(x: int, *, low: int = (-1)) -> int:"),
        ("clamp", "if (x < low and (not x)):"),
        ("clamp", "if (not (x < low or not x)):"),
        ("clamp", "if (x <= low) or not x:"),
        ("clamp", "if (x >= low) or not x:"),
        ("clamp", "if x < low or (x):"),
        ("clamp", "pass"),
        ("clamp", "return None"),
        ("clamp", "return max(x, LIMIT)[1:]"),
        ("clamp", "return min(x, LIMIT)[None:]"),
        ("clamp", "return min(x, LIMIT)[2:]"),
        ("clamp", "return min(x, LIMIT)[(0):]"),
    }


@pytest.mark.parametrize(
    ("line", "mutated"),
    [
        ("a + b", ["(a - b)"]),
        ("a << b", ["(a >> b)"]),
        ("a // b", ["(a * b)"]),
        ("a & -b", ["(a | -b)", "a & (b)"]),
        ("a == b", ["(a != b)"]),
        ("a is None", ["(a is not None)"]),
        ("a in b", ["(a not in b)"]),
        ("a <= b < c", ["(a < b < c)", "(a > b < c)", "(a <= b <= c)", "(a <= b >= c)"]),
        ("np.maximum(a, b)", ["(np.minimum)(a, b)"]),
        ("a.any()", ["(a.all)()"]),
        ("True", ["False"]),
        ("0.5", ["1.5", "(-0.5)"]),
        ("b if a else c", ["b if (not a) else c"]),
        ("[x for x in a if x]", ["[x for x in a if (not x)]"]),
        ("lambda x: -x", ["lambda x: (x)"]),
        ("'text' f'{a + b}'", []),
    ],
)
def test_expressions(line: str, mutated: list[str]) -> None:
    assert changes(f"v = {line}") == {("", f"v = {text}") for text in mutated}


def test_statements() -> None:
    source = "def f(a):\n    b = a\n    b += a\n    g(b)\n    while a:\n        break\n    return\n"
    found = [(mutant.line, mutant.after) for mutant in mutants_of(source)]
    assert found == [
        (2, "pass"), (3, "pass"), (3, "b -= a"), (4, "pass"), (5, "while (not a):"), (6, "pass"), (7, "pass"),
    ]  # fmt: skip
    assert [mutant.runs for mutant in mutants_of("x = 1\ndef f(a=2):\n    return\n")] == [None] * 2 + [range(3, 4)] * 3


def test_a_mutant_is_the_source_with_one_change() -> None:
    for mutant in mutants_of(SOURCE):
        compile(mutant.source, "mutant", "exec")
        assert mutant.source.count("\n") == SOURCE.count("\n")
        assert sum(a != b for a, b in zip(mutant.source.splitlines(), SOURCE.splitlines(), strict=True)) == 1


MODULE = """
LIMIT = 3

def least(a, b):
    while a > b:
        a -= 1
    if a > LIMIT + 100:
        return LIMIT
    return a
"""
TESTS = (
    "from package.module import least\n\ndef test_equal():\n    assert least(2, 2) == 2\n\n"
    "def test_greater():\n    assert least(5, 2) == 2\n"
)
SCRIPT = """
import json
from pathlib import Path
from tests.mutation.mutants import mutants_of
from tests.mutation.runner import judge, survey, warm_up
warm_up()
known = survey(["package/module.py"], ["test_module.py"])
mutants = list(mutants_of(Path("package/module.py").read_text()))
print(json.dumps({v.mutant.after: v.killer for v in judge("package/module.py", mutants, known, 2)}))
"""


def run(folder: Path, tests: str) -> subprocess.CompletedProcess[str]:
    (folder / "package").mkdir()
    (folder / "package" / "module.py").write_text(MODULE)
    (folder / "test_module.py").write_text(tests)
    path = os.pathsep.join([str(folder), str(Path(__file__).parents[2])])
    environment = os.environ | {"PYTHONPATH": path}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_mutants_are_judged_by_the_tests_that_run_them(tmp_path: Path) -> None:
    done = run(tmp_path, TESTS)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    equal, greater = "test_module.py::test_equal", "test_module.py::test_greater"
    assert found["while (a >= b):"] in (equal, greater)
    assert found["while (a <= b):"] in (equal, greater, "timeout")
    assert found["a += 1"] == "timeout"  # forever
    assert found["a -= 2"] == greater
    assert found["return None"] in (equal, greater, "")
    # Nothing comes near the limit, and a line that no test runs is killed by none.
    assert found["LIMIT = 4"] == found["if a > LIMIT + 101:"] == ""


def test_tests_that_fail_without_a_mutant_judge_nothing(tmp_path: Path) -> None:
    done = run(tmp_path, TESTS + "\ndef test_wrong():\n    assert least(1, 2) == 2\n")
    assert done.returncode == 1
    assert "the tests do not pass without a mutant: test_module.py::test_wrong" in done.stderr


def test_the_reviewed_list_fits_the_source() -> None:
    entries = equivalents()
    files = {file for group in GROUPS.values() for file in group}
    assert {entry["file"] for entry in entries} <= files
    for file in files:
        mine = [entry for entry in entries if entry["file"] == file]
        mutants = list(mutants_of(Path(file).read_text(encoding="utf-8")))
        for entry in mine:
            assert sum(is_listed(file, mutant, [entry]) for mutant in mutants) == 1, entry
            assert len(entry["reason"]) > 20


def test_every_file_has_tests_and_a_figure_that_is_good_enough() -> None:
    scores = {score.file: score for score in read_scores()}
    for group, files in GROUPS.items():
        for file, tests in files.items():
            assert Path(file).is_file()
            assert all(Path(test).exists() for test in tests)
        total = Score.sum(group, [scores[file] for file in files])
        assert total.share >= 95.0
    assert set(scores) == {file for files in GROUPS.values() for file in files}


def test_scores_are_shares_of_all_and_of_what_is_not_listed() -> None:
    total = Score.sum("g", [Score("g", "a", 50, 40, 5, "2026-01-01"), Score("g", "b", 50, 50, 0, "2026-01-02")])
    assert (total.mutants, total.killed, total.equivalent, total.date) == (100, 90, 5, "2026-01-02")
    assert (total.raw, round(total.share, 3)) == (90.0, 94.737)


def test_the_command_explains_itself() -> None:
    done = CliRunner().invoke(main, ["--help"])
    assert done.exit_code == 0
    assert "--at-least" in done.output
    assert CliRunner().invoke(main, ["everything"]).exit_code == 2
