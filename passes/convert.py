"""The stock road from a float or fake-quantised module to exact integers for one march."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from xdsl.ir import Block

from hbir.arguments import checked_kind
from hbir.dialects.hbir import CastOp, ConstantOp, Conv2dOp, LinearOp
from hbir.dialects.qat import FakeQuantOp
from hbir.errors import PassError
from hbir.march import March, load_march
from hbir.module import Module, checked_module
from passes.calibrate import FLOAT_PIPELINE
from passes.common.analysis import has_integer_form
from passes.manager import Pass, PassReport, Pipeline

__all__ = ["convert", "convert_pipeline"]


def convert_pipeline(
    march: March, *, high_precision_output: bool = False, lut_bound: float = 64.0, integer_conv: bool = False
) -> str:
    """The text of the pipeline that `convert` runs; `integer_conv`: without float results where the march has them."""
    bits = f"multiplier-bits={march.multiplier_bits} high-multiplier-bits={march.high_multiplier_bits}"
    floats, wide = march.has_float_results and not integer_conv, march.int16_accumulator_bits
    steps = [
        FLOAT_PIPELINE,
        "unify-scales",
        "merge-duplicates",
        f"quantize{{{bits}{' float-results=true' if floats else ''}}}",
        f"fix-lut{{bound={lut_bound}}}",
        *([f"high-precision-output{'{float-results=true}' if floats else ''}"] if high_precision_output else []),
        f"fold-requantize{{{bits}}}",
        "narrow-movement",
        "canonicalize",
        "cancel-transposes",
        "merge-duplicates",
        "dead-code",
        "prove-intervals" + (f"{{int16-accumulator-bits={wide}}}" if wide != 48 else ""),
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
    reproducer: Path | None = None,
    trace: Path | None = None,
    **unknown: Any,
) -> Module:
    """The integer form of a calibrated (or fake-quantised) module; the argument stays as it is.

    `march` is a name, a March or the path of a march file. A plain convolution that feeds an output keeps its int32
    accumulator; `high_precision_output` does so even where the model asks for a fake quant there. On a march whose tensor
    engine gives float32 (nash-p, nash-h) it hands out that instead, unless `module._integer_conv` is True. `lut_bound` is the
    largest accepted error of an int16 table in steps of its result. `verify`, `observer`, `reproducer` and `trace` are those of
    `Pipeline`. Raises PassError for a module without any fake quant and for options that do not fit, IrError HB0236 for
    what is no module.
    """
    if unknown:
        raise PassError(34, f"convert has no option {sorted(unknown)}", lever="see the documentation of passes.convert")
    checked_module(module)
    target = load_march(march)
    checked_kind(
        high_precision_output,
        bool,
        lambda given, why: PassError(33, f"high_precision_output is {given}", why=why, lever="choose True or False"),
    )
    if _computes(module) and not _is_calibrated(module):
        raise PassError(
            32,
            "the module has no fake quantisation, or that of its inputs alone",
            why="scales come from calibration or training",
            lever="run `calibrate(module, feeds)` first, or import a quantised model",
        )
    text = convert_pipeline(
        target, high_precision_output=high_precision_output, lut_bound=lut_bound, integer_conv=module.integer_conv
    )
    pipeline = Pipeline(text, verify=verify, observer=observer, reproducer=reproducer, trace=trace)
    result = pipeline.run(module)
    result.march = target.name
    return result


def _computes(module: Module) -> bool:
    """Whether anything needs a grid: what only moves values runs on whatever it is given."""
    return any(has_integer_form(op) for function in module for op in function.operations)


def _is_calibrated(module: Module) -> bool:
    """Whether fake quantisation says more than how inputs are fed: image inputs bring theirs before any calibration."""
    operations = [op for function in module for op in function.operations]
    sources = [op.input.owner for op in operations if isinstance(op, FakeQuantOp)]
    inputs_only = all(isinstance(owner.input.owner if isinstance(owner, CastOp) else owner, Block) for owner in sources)
    layers = [op for op in operations if isinstance(op, Conv2dOp | LinearOp)]
    return bool(sources) and not (inputs_only and any(isinstance(op.weight.owner, ConstantOp) for op in layers))
