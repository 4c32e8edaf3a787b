"""The integer softmax of the `quantized` dialect as one TOSA graph: the composite that shows how a chain is checked
whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hbir.testing.oracles.tosa_graph import NAMES, Graph, Tensor

__all__ = ["softmax", "softmax_chain"]

Array = npt.NDArray[Any]


def softmax_chain(graph: Graph, x: Tensor, exp_table: Array, reciprocal_table: Array, axis: int) -> Tensor:
    """The 15 to 16 TOSA ops of `quantized.softmax` before its rescale: INT8 or INT16 to INT32 with 29 fractional bits."""
    value = graph.rescale(x, 1 << 30, 30, 0, 0, "INT32")
    difference = graph.binary("SUB", value, graph.reduce("REDUCE_MAX", value, axis))
    ones = (1,) * len(x.shape)
    if x.dtype == "INT8":
        place = graph.binary("ADD", difference, graph.const(np.full(ones, 255), "INT32"))
        entries = graph.const(exp_table.astype(np.int64).reshape(1, 256, 1), "INT32")
        flat = graph.reshape(place, (1, int(np.prod(x.shape))))
        exponential = graph.reshape(graph.gather(entries, flat), x.shape)
    else:
        halved = graph.rescale(difference, 1 << 30, 31, 0, 0, "INT16")
        exponential = graph.rescale(graph.table(halved, exp_table), 1 << 30, 37, 0, 0, "INT32")
    total = graph.reduce("REDUCE_SUM", exponential, axis)
    zeros = graph.clz(total)
    normal = graph.left_shift(total, graph.binary("SUB", zeros, graph.const(np.full(ones, 1), "INT32")))
    top = graph.right_shift(normal, graph.const(np.full(ones, 14), "INT32"), rounding=False)
    index = graph.cast(graph.binary("SUB", top, graph.const(np.full(ones, 98304), "INT32")), "INT16")
    reciprocal = graph.table(index, reciprocal_table)
    product = graph.binary("MUL", exponential, reciprocal, shift=7)
    amount = graph.binary("SUB", graph.const(np.full(ones, 17), "INT32"), zeros)
    return graph.right_shift(product, amount, rounding=True)


def softmax(
    x: Array,
    exp_table: Array,
    reciprocal_table: Array,
    *,
    axis: int,
    multiplier: int,
    shift: int,
    zp_out: int = 0,
    lo: int = -128,
    hi: int = 127,
    out_dtype: npt.DTypeLike = np.int8,
) -> Array:
    """The chain of `quantized.softmax` as one TOSA graph of 16 to 17 ops, along `axis` of an int8 or int16 array."""
    graph = Graph()
    unrounded = softmax_chain(graph, graph.input(x), exp_table, reciprocal_table, axis)
    result = graph.rescale(unrounded, multiplier, shift, 0, zp_out, NAMES[np.dtype(out_dtype)])
    return graph.run(graph.clamp(result, lo, hi))[0]
