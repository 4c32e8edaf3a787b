"""Figures that tests measure, collected and printed at the end of the run, whichever process measured them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

__all__ = ["Figures", "figures", "pytest_terminal_summary"]

Figures = Callable[[str], None]

_KEY = "figure"


@pytest.fixture
def figures(record_property: Callable[[str, object], None]) -> Figures:
    """A function that notes a line for the end of the run."""
    return lambda line: record_property(_KEY, line)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what the tests noted, in the order of their names: the order of several processes means nothing."""
    rows: dict[tuple[str, int], str] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            lines = [value for key, value in getattr(report, "user_properties", ()) if key == _KEY]
            rows |= {(report.nodeid, index): line for index, line in enumerate(lines)}
    if rows:
        terminalreporter.section("figures")
        for key in sorted(rows):
            terminalreporter.line(rows[key])
