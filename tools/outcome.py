"""What a run of hb_compile gave, as plain values: the stages fill it in, the summary reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hbir.march import March
from tools.job import Job

if TYPE_CHECKING:
    from backends import Hbm
    from backends.nash.perf import Report
    from hbir.module import Module
    from tools.evaluation import EvaluationResult

__all__ = ["Outcome"]


@dataclass(frozen=True)
class Outcome:
    """What a run gave; `files` are in the output folder. Everything behind `files` is None after a stage that was skipped."""

    job: Job
    march: March
    files: tuple[Path, ...]
    calibrated_on: int
    """Samples; 0 when every range is one, or when the model brought its own scales."""
    quantized: Module | None = None
    hbm: Hbm | None = None
    evaluation: EvaluationResult | None = None
    layer_cosines: dict[str, float] | None = None
    perf: Report | None = None
