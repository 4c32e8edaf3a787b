"""Modules whose convolutions, linear layers and matrix products hand out float32, made of any others."""

from __future__ import annotations

from typing import Any

import numpy as np
from xdsl.dialects.builtin import f32
from xdsl.dialects.func import ReturnOp
from xdsl.ir import Block, SSAValue

from hbir.dialects import quantized as q
from hbir.dialects.base import Array
from hbir.dialects.hbir import Conv2dOp, LinearOp
from hbir.dialects.qat import FakeQuantOp
from hbir.dialects.quant import UniformQuantizedType, quantized_element
from hbir.module import Module
from hbir.testing import Seeded
from hbir.testing.graphs import SeededGraph
from passes.common.rewriting import constant_of, erase_dead

__all__ = ["accumulators", "float_twin", "output_and_input", "with_float_results"]


def _sums(op: q.Conv2dOp | q.MatmulOp) -> UniformQuantizedType:
    """The type of the accumulator: the product of the operands' scales."""
    left, right = (quantized_element(value.type) for value in op.operands[:2])
    products = np.float64(left.scale) * right.scale_array.astype(np.float64)
    return UniformQuantizedType.get(32, products.tolist(), axis=3 if products.size > 1 else -1)


def float_twin(op: q.Conv2dOp | q.MatmulOp) -> q.Conv2dOp | q.MatmulOp:
    """The same product with a float result; a residual is left out."""
    grid = _sums(op)
    values: dict[str, Any] = op.values | {"multiplier": None, "shift": None, "float_type": f32, "grid": grid}
    values |= dict(zip(("low", "high"), grid.limits, strict=True))
    if isinstance(op, q.MatmulOp):
        return q.MatmulOp.make(op.lhs, op.rhs, **values)
    absent = ("common_scale", "residual_multiplier", "residual_shift", "output_multiplier", "output_shift")
    return q.Conv2dOp.make(op.input, op.weight, op.bias, None, **values | dict.fromkeys(absent))


def with_float_results(module: Module) -> Module:
    """A copy in which every product has a twin with a float result, which is an output more."""
    made = module.clone()
    block: Block = made[0].op.body.block
    last = made[0].return_op
    assert isinstance(last, ReturnOp)
    twins = [float_twin(op) for op in list(block.ops) if isinstance(op, q.Conv2dOp | q.MatmulOp)]
    for twin in twins:
        block.insert_op_before(twin, last)
    last.operands = [*last.operands, *(twin.output for twin in twins)]
    made[0].op.properties.pop("res_attrs", None)
    made[0].update_type()
    made.verify()
    return made


def accumulators(op: q.Conv2dOp | q.MatmulOp, module: Module, x: Array, y: Array | None = None) -> Array:
    """The exact sums of a product on arrays, tap by tap in int64: independent of the kernels. `y`: the right matrix, or None
    for the constant weight."""
    zeros = op.zero_points
    if isinstance(op, q.MatmulOp):
        right = constant_of(op.rhs, module.constants) if y is None else y
        assert right is not None
        return np.matmul(x.astype(np.int64) - zeros[0], right.astype(np.int64) - zeros[1])
    weight = constant_of(op.weight, module.constants)
    bias = None if op.bias is None else constant_of(op.bias, module.constants)
    assert weight is not None
    values = op.values
    top, left, bottom, right_pad = values["pad"]
    centred = np.pad(x.astype(np.int64) - zeros[0], ((0, 0), (top, bottom), (left, right_pad), (0, 0)))
    channels, kh, kw, depth = weight.shape
    (sy, sx), (dy, dx), groups = values["stride"], values["dilation"], values["groups"]
    rows = (centred.shape[1] - dy * (kh - 1) - 1) // sy + 1
    columns = (centred.shape[2] - dx * (kw - 1) - 1) // sx + 1
    sums = np.zeros((x.shape[0], rows, columns, channels), np.int64)
    for c in range(channels):
        first = c // (channels // groups) * depth
        for i in range(kh):
            for j in range(kw):
                seen = centred[:, i * dy : i * dy + rows * sy : sy, j * dx : j * dx + columns * sx : sx]
                seen = seen[:, :rows, :columns, first : first + depth]
                sums[..., c] += seen @ weight[c, i, j].astype(np.int64)
    return sums if bias is None else sums + bias.astype(np.int64)


def output_and_input(layer: str, *, bits: int = 8, on_grid: bool = False, reach: int = 1) -> Module:
    """y = layer(x); z = layer(fake_quant(y)); y and z are outputs, `on_grid` both behind a fake quant.

    `layer` is "conv", "relu conv", "linear" (one row of features) or "wide linear" (rows along two axes); activations are of
    `bits` bits; `reach` is by how much the inputs of a linear layer are more than its 8 outputs.
    """
    graph = SeededGraph(Seeded(0))
    rng = np.random.default_rng(5)
    steps = 2.0 ** (8 - bits)
    wide = layer == "wide linear"
    depth = 8 * reach
    shape = (1, 5, 4, depth) if "conv" in layer else (2, 3, depth) if wide else (2, depth)
    x = graph.add(FakeQuantOp.make(graph.input(shape, f32), grid=UniformQuantizedType.get(bits, 0.05 * steps, -3)))
    between = UniformQuantizedType.get(bits, 0.11 * steps, 5)
    results: list[SSAValue] = []
    for fan_in in (depth, 8):
        kernel = (8, 3, 3, fan_in) if "conv" in layer else (8, fan_in)
        weight = rng.normal(0, 0.3, kernel).astype(np.float32)
        largest = np.abs(weight).reshape(8, -1).max(axis=1)
        narrow = UniformQuantizedType.get(8, largest / 127, axis=0, narrow=True)
        w = graph.add(FakeQuantOp.make(graph.constant(weight, f32), grid=narrow))
        b = graph.constant(rng.normal(0, 1, 8).astype(np.float32), f32)
        low = 0.0 if "relu" in layer else None
        if "conv" in layer:
            geometry = {"stride": (1, 1), "pad": (1, 1, 1, 1), "dilation": (1, 1), "groups": 1}
            y = graph.add(Conv2dOp.make(x, w, b, None, **geometry, min=low, max=None))
        else:
            y = graph.add(LinearOp.make(x, w, b, min=low, max=None))
        x = graph.add(FakeQuantOp.make(y, grid=between))
        results.append(x if on_grid else y)
    module = graph.finish()
    module[0].return_op.operands = results
    module[0].op.properties.pop("res_attrs", None)
    module[0].update_type()
    erase_dead(module[0].op.body.block)
    return module
