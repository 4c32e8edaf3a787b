"""The fuzz command: it runs, it notices a planted fault, makes it small, keeps a reproducer, and says so by its status."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from backends.nash.simulator import functional
from hbir import load
from tests.fuzz import case as cases
from tests.fuzz.__main__ import main
from tests.fuzz.case import KINDS, REFUSALS, Case, keep, reduced, run, stored
from tests.fuzz.modules import Report, fuzz


def test_cases_of_every_kind_pass() -> None:
    report = Report()
    kinds: set[str] = set()
    for seed in range(30):
        outcome = run(Case(seed))
        kinds.add(outcome.kind)
        assert outcome.state == "passed" or outcome.code in REFUSALS, (seed, outcome)
        report.add(outcome)
    assert kinds == set(KINDS)
    assert report.counts["modules"]["passed"] >= 18 and report.counts["modules"]["operations"] >= 100
    assert "0 mismatches" in str(report)


def _broken_clamp(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulator's clamp forgets its upper bound."""
    stock = functional.BINDERS

    def unbounded(v: Any, p: Any) -> Any:
        return stock["CLAMP"](v, {**p, "high": 127})

    monkeypatch.setattr(functional, "BINDERS", {**stock, "CLAMP": unbounded})


def test_a_planted_fault_is_found_made_small_and_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _broken_clamp(monkeypatch)
    found = next(case for case in map(Case, range(5000, 5400)) if run(case).signature == "mismatch")
    small = reduced(found, seconds=8)
    outcome = run(small)
    assert outcome.signature == "mismatch"
    keep(small, outcome, tmp_path / "found")
    kept = stored(tmp_path / "found" / "case.json")
    assert kept == small
    module = load(tmp_path / "found" / "integers.mlir")
    operations = [op.name for op in module[0].operations if op.name != "hbir.constant"]
    assert "quantized.clamp" in operations and len(operations) <= 4
    assert "elements differ" in (tmp_path / "found" / "problem.txt").read_text("utf-8")
    result = CliRunner().invoke(main, ["again", str(tmp_path / "found" / "case.json")])
    assert result.exit_code == 1 and "failed" in result.output
    monkeypatch.undo()
    assert CliRunner().invoke(main, ["again", str(tmp_path / "found" / "case.json")]).exit_code == 0


def test_a_crash_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise KeyError("nothing there")

    monkeypatch.setattr(cases, "bind", broken)
    outcome = next(outcome for seed in range(50) if (outcome := run(Case(seed))).kind == "quantized")
    assert (outcome.state, outcome.signature.split()[0]) == ("failed", "KeyError")


def test_a_run_counts_and_ends_in_time() -> None:
    lines: list[str] = []
    report = fuzz(5, 1, 77, 6, progress=lambda found: lines.append(str(found)))
    assert report.counts["modules"]["inputs"] == 6
    assert not report.failed and report.seconds > 0 and lines


@pytest.mark.parametrize(
    ("options", "minutes"),
    [((), 10), (("--count", "6"), math.inf), (("--count", "6", "--minutes", "3"), 3)],
    ids=["default", "count", "both"],
)
def test_a_count_alone_has_no_time_limit(
    options: tuple[str, ...], minutes: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def noted(minutes: float, *rest: object) -> Report:
        asked.append(minutes)
        return Report()

    monkeypatch.setattr("tests.fuzz.modules.fuzz", noted)
    assert CliRunner().invoke(main, ["modules", *options]).exit_code == 0
    assert asked == [minutes]


@pytest.mark.parametrize("command", ["modules", "readers", "all", "again", "table"])
def test_help(command: str) -> None:
    result = CliRunner().invoke(main, [command, "--help"])
    assert result.exit_code == 0 and "--" in result.output


def test_readers_are_asked_for_by_name() -> None:
    result = CliRunner().invoke(main, ["readers", "--reader", "onyx"])
    assert result.exit_code == 2 and "'onyx' is none of" in result.output and "onnx" in result.output
