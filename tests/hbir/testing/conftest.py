"""Prints what Arm's conformance cases covered below the test results."""

from __future__ import annotations

from collections import Counter

import pytest

COUNTS = pytest.StashKey[dict[str, Counter[str]]]()


@pytest.fixture
def case_counts(request: pytest.FixtureRequest) -> dict[str, Counter[str]]:
    """Operation -> how many cases were "equal", and which groups of cases were left out; shown in the terminal
    summary."""
    return request.config.stash.setdefault(COUNTS, {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """One line an operation."""
    counts = config.stash.get(COUNTS, {})
    if not counts:
        return
    terminalreporter.section("TOSA conformance cases (integer profile, INT16 extension)")
    total: Counter[str] = Counter()
    for operation, outcomes in sorted(counts.items()):
        total.update(outcomes)
        terminalreporter.write_line(f"{operation:24}{outcomes['equal']:5} equal")
    terminalreporter.write_line(
        f"{'all':24}{total.pop('equal', 0):5} equal; left out, see EXCLUDED in test_tosa_cases.py:"
    )
    for reason, number in sorted(total.items()):
        terminalreporter.write_line(f"{'':4}{number:5} {reason}")
