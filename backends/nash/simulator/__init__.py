"""The simulator: what a binary computes (`bind`, then `run`) and how long it takes (`simulate`).

It takes only what `backends.nash.hbm.read` returns. Numbers and time are separate: `simulate` needs no data, and the
functional side knows no cycles.
"""

from __future__ import annotations

from backends.nash.simulator.functional import Bound, bind
from backends.nash.simulator.timing import Timing, UnitTime, simulate

__all__ = ["Bound", "Timing", "UnitTime", "bind", "simulate"]
