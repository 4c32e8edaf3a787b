"""Lookup tables of the `quantized` dialect in TOSA: TABLE, GATHER, and the segmented form as a chain of integer ops."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from xdsl.ir import SSAValue

from hbir.dialects import quantized as q
from hbir.dialects.base import Array, HbOperation
from hbir.dialects.quant import quantized_element
from hbir.dialects.quantized.table import ideal_results
from hbir.testing.oracles.tosa_graph import Graph, Tensor
from hbir.testing.oracles.tosa_lowering import Handler, Lowering, inexact, kind_of
from hbir.testing.oracles.tosa_rescale import finished
from hbir.testing.oracles.tosa_softmax import softmax_chain

__all__ = ["TABLES", "known_operand"]


def known_operand(low: Lowering, op: HbOperation, value: SSAValue, role: str) -> Array:
    """The array of an operand that TOSA wants to know beforehand. Raises `SimulationError` HB0794 when it is computed."""
    array = low.constant(value)
    if array is None:
        raise inexact(op, f"its {role} is computed, and here it has to be a constant")
    return array


def _entries(graph: Graph, values: npt.ArrayLike, kind: str, places: Tensor) -> Tensor:
    """`values[places]`: GATHER from a list by INT32 indices of any shape."""
    rows = graph.operand(np.asarray(values).reshape(1, -1, 1), kind)
    flat = graph.reshape(places, (1, int(np.prod(places.shape))))
    return graph.reshape(graph.gather(rows, flat), places.shape)


def _constant(graph: Graph, x: Tensor, value: int) -> Tensor:
    return graph.const(np.full((1,) * len(x.shape), value), "INT32")


def _looked_up(low: Lowering, x: Tensor, entries: Array, kind: str) -> Tensor:
    """One entry for each storage value of `x`, the smallest first."""
    if x.dtype == kind == "INT8":
        return low.graph.table(x, entries)
    wide = low.graph.cast(x, "INT32")
    half = 1 << (7 if x.dtype == "INT8" else 15)
    return _entries(low.graph, entries, kind, low.graph.binary("ADD", wide, _constant(low.graph, x, half)))


def _function(low: Lowering, op: q.FunctionOp) -> Tensor:
    source, values = quantized_element(op.input.type), op.values
    entries = ideal_results(values["function"], values["parameters"], source, values["grid"])
    return _looked_up(low, low.tensor(op, op.input), entries, kind_of(op.output.type))


def _table(low: Lowering, op: q.TableOp) -> Tensor:
    return _looked_up(low, low.tensor(op, op.input), known_operand(low, op, op.table, "table"), "INT8")


def _interpolate(low: Lowering, op: q.InterpolateOp) -> Tensor:
    entries = known_operand(low, op, op.table, "table")
    return finished(low, op, low.graph.table(low.tensor(op, op.input), entries))


def _softmax(low: Lowering, op: q.SoftmaxOp) -> Tensor:
    exponentials = known_operand(low, op, op.exp_table, "table of exponentials")
    reciprocals = known_operand(low, op, op.reciprocal_table, "table of reciprocals")
    x = low.tensor(op, op.input)
    return finished(low, op, softmax_chain(low.graph, x, exponentials, reciprocals, op.values["axis"]))


def _segmented(low: Lowering, op: q.SegmentedOp) -> Tensor:
    """The last segment that starts at or before x, two of its entries, and the line between them, rounded half up."""
    graph, x = low.graph, low.tensor(op, op.input)
    starts = known_operand(low, op, op.starts, "list of starts").astype(np.int64)
    spacings = known_operand(low, op, op.spacings, "list of spacings")
    entries = known_operand(low, op, op.entries, "table")
    width = entries.shape[1]
    ascending = starts[0] == -32768 and (np.diff(starts) > 0).all()
    if not ascending or spacings.min() < 0 or spacings.max() > 11:
        raise inexact(op, "its segments are not ascending from -32768 with spacings from 0 to 11")
    wide = graph.reshape(graph.cast(x, "INT32"), (int(np.prod(x.shape)), 1))
    begun = graph.cast(graph.compare("GREATER_EQUAL", wide, graph.const(starts[None], "INT32")), "INT32")
    segment = graph.binary("SUB", graph.reduce("REDUCE_SUM", begun, 1), _constant(graph, wide, 1))
    spacing = _entries(graph, spacings.astype(np.int32), "INT32", segment)
    distance = graph.binary("SUB", wide, _entries(graph, starts, "INT32", segment))
    index = graph.right_shift(distance, spacing, rounding=False)
    rest = graph.binary("SUB", distance, graph.left_shift(index, spacing))
    last = _constant(graph, wide, width - 1)
    row = graph.binary("MUL", segment, _constant(graph, wide, width))
    here = graph.binary("MINIMUM", index, last)
    beyond = graph.binary("MINIMUM", graph.binary("ADD", here, _constant(graph, wide, 1)), last)
    flat = entries.astype(np.int32)
    base, following = (_entries(graph, flat, "INT32", graph.binary("ADD", row, at)) for at in (here, beyond))
    line = graph.binary("MUL", graph.binary("SUB", following, base), rest)
    exact = graph.binary("ADD", graph.left_shift(base, spacing), line)
    return graph.reshape(graph.cast(graph.right_shift(exact, spacing, rounding=True), "INT16"), x.shape)


TABLES: dict[type[HbOperation], Handler] = {
    q.FunctionOp: _function,
    q.InterpolateOp: _interpolate,
    q.SegmentedOp: _segmented,
    q.SoftmaxOp: _softmax,
    q.TableOp: _table,
}
"""For each operation on tables what turns it into TOSA ops."""
