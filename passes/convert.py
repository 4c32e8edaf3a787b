"""The stock road from a float or fake-quantised module to exact integers for one march."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from hbir.dialects.qat import FakeQuantOp
from hbir.errors import PassError
from hbir.march import March, load_march
from hbir.module import Module
from passes.calibrate import FLOAT_PIPELINE
from passes.manager import Pass, PassReport, Pipeline

__all__ = ["convert", "convert_pipeline"]


def convert_pipeline(march: March, *, high_precision_output: bool = False, lut_bound: float = 64.0) -> str:
    """The text of the pipeline that `convert` runs."""
    bits = f"multiplier-bits={march.multiplier_bits} high-multiplier-bits={march.high_multiplier_bits}"
    steps = [
        FLOAT_PIPELINE,
        "unify-scales",
        f"quantize{{{bits}}}",
        f"fix-lut{{bound={lut_bound}}}",
        *(["high-precision-output"] if high_precision_output else []),
        f"fold-requantize{{{bits}}}",
        "canonicalize",
        "cancel-transposes",
        "dead-code",
        "prove-intervals",
    ]
    return ",".join(steps)


def convert(
    module: Module,
    march: str | Path | March,
    *,
    high_precision_output: bool = False,
    lut_bound: float = 64.0,
    verify: Literal["none", "structure", "exec"] = "structure",
    observer: Callable[[Pass, PassReport, Module], None] | None = None,
    **unknown: Any,
) -> Module:
    """The integer form of a calibrated (or fake-quantised) module; the argument stays as it is.

    `march` is a name, a March or the path of a march file. A plain convolution that feeds an output keeps its int32
    accumulator; `high_precision_output` does so even where the model asks for a fake quant there. `lut_bound` is the largest
    accepted error of an int16 table in steps of its result. Raises PassError for a module without any fake quant.
    """
    if unknown:
        raise PassError(31, f"convert has no option {sorted(unknown)}", lever="see the documentation of passes.convert")
    target = march if isinstance(march, March) else load_march(march)
    if not any(isinstance(op, FakeQuantOp) for function in module for op in function.operations):
        raise PassError(
            32,
            "the module has no fake quantisation",
            why="scales come from calibration or training",
            lever="run `calibrate(module, feeds)` first, or import a quantised model",
        )
    text = convert_pipeline(target, high_precision_output=high_precision_output, lut_bound=lut_bound)
    result = Pipeline(text, verify=verify, observer=observer).run(module)
    result.march = target.name
    return result
