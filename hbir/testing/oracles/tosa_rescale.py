"""Every rescale of the `quantized` dialect in TOSA's terms, exactly: zero points that RESCALE does not take, saturation.

TOSA asks more of a RESCALE than this project does: the scaled value fits int32, and a wide multiplier needs an input below
2^(shift - 1). Where the type of the result saturates anyway, the input is held to what saturates first, which changes no
result. Elsewhere the graph is left as it is, and the reference model calls it unpredictable when a value goes too far.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hbir.testing.oracles.tosa_graph import BITS, Graph, Tensor
from hbir.testing.oracles.tosa_lowering import Lowering, kind_of

__all__ = ["WHOLE", "centred", "clamped", "finished", "requantized"]

Array = npt.NDArray[Any]

WHOLE: dict[str, Any] = {"low": -(1 << 31), "high": (1 << 31) - 1, "out": "INT32"}
"""What `requantized` takes for a value between two rescales, which int32 holds and nothing saturates."""

_MOST = (1 << 31) - (1 << 17)
"""What a scaled value may be, such that any zero point of 16 bits still fits beside it in int32."""


def _filled(graph: Graph, x: Tensor, value: npt.ArrayLike) -> Tensor:
    """A constant that broadcasts over `x`: one value, or one for each channel of the last axis."""
    array = np.atleast_1d(np.asarray(value))
    return graph.const(array.reshape((1,) * (len(x.shape) - 1) + (-1,)), "INT32")


def centred(graph: Graph, x: Tensor, zero_point: int) -> Tensor:
    """`x - zero_point` as INT32."""
    if x.dtype == "INT8":
        return graph.rescale(x, 1 << 30, 30, zero_point, 0, "INT32")
    if x.dtype == "INT48":
        return graph.rescale(x, 1 << 14, 14, 0, 0, "INT32")
    wide = x if x.dtype == "INT32" else graph.cast(x, "INT32")
    return graph.binary("SUB", wide, _filled(graph, x, zero_point)) if zero_point else wide


def clamped(graph: Graph, x: Tensor, low: npt.ArrayLike, high: npt.ArrayLike) -> Tensor:
    """`x` held between bounds: CLAMP, or MINIMUM and MAXIMUM for INT32, which CLAMP does not know. No op for the whole type."""
    half = 1 << (BITS[x.dtype] - 1)
    lowest, highest = int(np.max(low)), int(np.min(high))
    if np.size(low) == np.size(high) == 1 and x.dtype != "INT32":
        return x if (lowest, highest) == (-half, half - 1) else graph.clamp(x, lowest, highest)
    if highest < half - 1:
        x = graph.binary("MINIMUM", x, _filled(graph, x, high))
    return graph.binary("MAXIMUM", x, _filled(graph, x, low)) if lowest > -half else x


def _reach(multiplier: Array, shift: Array, limit: int, wide: bool) -> tuple[Array, Array]:
    """Largest input whose scaled value TOSA promises, and that value; one each for every channel. Python integers."""
    inputs: list[int] = []
    for m, s in zip(multiplier.tolist(), shift.tolist(), strict=True):
        most = (limit << 62) if m == 0 else ((limit << s) - (1 << (s - 1))) // m
        inputs.append(min(most, (1 << (s - 1)) - 1 if wide else most))
    values = [(x * int(m) + (1 << (int(s) - 1))) >> int(s) for x, m, s in zip(inputs, multiplier, shift, strict=True)]
    return np.array(inputs, object), np.array(values, object)


def requantized(
    graph: Graph,
    x: Tensor,
    multiplier: npt.ArrayLike,
    shift: npt.ArrayLike,
    *,
    zp_in: int = 0,
    zp_out: int = 0,
    low: int,
    high: int,
    out: str,
) -> Tensor:
    """`clamp(rescale(x - zp_in) + zp_out, low, high)` of type `out`, per channel of the last axis or for all.

    `multiplier` and `shift` as in the dialect. RESCALE with what stands around it where TOSA needs that: see this module."""
    m, s = np.broadcast_arrays(
        np.atleast_1d(np.asarray(multiplier, np.int64)), np.atleast_1d(np.asarray(shift, np.int64))
    )
    wide = int(m.max()) >= 1 << 15
    if wide:  # the same factors with the largest shift, which allows the largest inputs
        spare = np.array(
            [min(62 - int(b), 31 - int(a).bit_length()) if a else 62 - int(b) for a, b in zip(m, s, strict=True)]
        )
        m, s = m << spare, s + spare
    if x.dtype == "INT48" and wide:
        x = centred(graph, x, 0)
    half = 1 << (BITS[x.dtype] - 1)
    most, scaled = _reach(m, s, _MOST, wide)
    if x.dtype != "INT48" and (most < half + abs(zp_in)).any():
        # The scaled value of -most is at most 1 below that of most, negated: both ends saturate, or nothing is held.
        holds = (m == 0) | ((scaled + zp_out >= high) & (1 - scaled + zp_out <= low))
        x, zp_in = centred(graph, x, zp_in), 0
        if holds.all():
            x = clamped(graph, x, np.maximum(-most, -(1 << 31)), np.minimum(most, (1 << 31) - 1))
    if zp_in and x.dtype != "INT8":
        x, zp_in = centred(graph, x, zp_in), 0
    if out == "INT8" or not zp_out:
        return clamped(graph, graph.rescale(x, m, s, zp_in, zp_out, out), low, high)
    moved = graph.rescale(x, m, s, zp_in, 0, "INT32")
    moved = clamped(graph, graph.binary("ADD", moved, _filled(graph, moved, zp_out)), low, high)
    return moved if out == "INT32" else graph.cast(moved, out)


def finished(low: Lowering, op: Any, x: Tensor) -> Tensor:
    """The rescale and clamp that end an operation, from its properties and the type of its result."""
    values = op.values
    after = {"zp_out": values["grid"].zero_point, "low": values["low"], "high": values["high"]}
    return requantized(low.graph, x, values["multiplier"], values["shift"], **after, out=kind_of(op.output.type))
