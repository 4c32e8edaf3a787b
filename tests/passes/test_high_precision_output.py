"""Accumulators as outputs: finer where they are read as floats, bit for bit the same where they are read as integers."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, assume, given, settings

from hbir.dialects import quantized as q
from hbir.dialects.base import shape_of
from hbir.dialects.quant import quantized_element
from hbir.module import Module
from hbir.testing import example_feeds, operations
from passes import Pipeline


def _plain(module: Module) -> q.Conv2dOp | None:
    conv = next(op for op in module[0].operations if isinstance(op, q.Conv2dOp))
    full = (conv.values["low"], conv.values["high"]) == conv.grid.limits
    first = quantized_element(conv.input.type).bits == 8
    return conv if conv.residual is None and conv.multiplier is not None and full and first else None


@settings(max_examples=25, suppress_health_check=[HealthCheck.filter_too_much])  # one in nine is plain
@given(operations(q.Conv2dOp))
def test_both_readers(module: Module) -> None:
    conv = _plain(module)
    assume(conv is not None)
    assert conv is not None
    last = module[0].return_op
    block = module[0].op.body.block
    floats = q.DequantizeOp.make(conv.output, grid=conv.grid)
    clamped = q.ClampOp.make(conv.output, low=conv.grid.limits[0], high=conv.grid.zero_point)
    for op in (floats, clamped):
        block.insert_op_before(op, last)
    last.operands = [floats.output, clamped.output, conv.output]
    module[0].op.properties.pop("res_attrs", None)
    module[0].update_type()
    wide = Pipeline("high-precision-output,dead-code", verify="exec").run(module)
    convs = [op for op in wide[0].operations if isinstance(op, q.Conv2dOp)]
    assert len(convs) == 1 and convs[0].multiplier is None  # one convolution serves all readers
    feed = example_feeds(module[0])
    before, after = list(module[0].feed(feed).values()), list(wide[0].feed(feed).values())
    for old, new in zip(before[1:], after[1:], strict=True):
        np.testing.assert_array_equal(new, old, strict=True)
    low, high = (np.float64(limit - conv.grid.zero_point) * conv.grid.scale for limit in conv.grid.limits)
    saturated = np.clip(after[0].astype(np.float64), low, high)
    # Half a step of the coarse result, 2^-14 of its range for the multiplier, and float32.
    assert np.abs(saturated - before[0]).max(initial=0) <= 0.52 * conv.grid.scale * (1 if conv.grid.bits == 8 else 6)
    assert after[0].shape == shape_of(conv.output.type)


def test_what_clamps_inside_its_range_stays() -> None:
    @settings(max_examples=25)
    @given(operations(q.Conv2dOp))
    def check(module: Module) -> None:
        conv = next(op for op in module[0].operations if isinstance(op, q.Conv2dOp))
        assume(conv.multiplier is not None and _plain(module) is None)
        floats = q.DequantizeOp.make(conv.output, grid=conv.grid)
        module[0].op.body.block.insert_op_before(floats, module[0].return_op)
        module[0].return_op.operands = [floats.output]
        module[0].update_type()
        assert str(Pipeline("high-precision-output").run(module)) == str(module)

    check()
