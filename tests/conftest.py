"""Settings of the whole suite: reproducible examples, and no result that depends on how busy the machine is."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import HealthCheck, settings

from tests.reporting import figures, pytest_terminal_summary

__all__ = ["figures", "pytest_terminal_summary"]

settings.register_profile(
    "suite",
    derandomize=True,  # the same examples in every run: a red test stays red
    database=None,
    deadline=timedelta(seconds=20),  # one example; catches a runaway, not a busy machine
    max_examples=50,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
# `pytest --hypothesis-profile=search` looks for new examples.
settings.register_profile("search", parent=settings.get_profile("suite"), derandomize=False, max_examples=2000)
settings.load_profile("suite")
