"""Cycles of a decoded instruction: each opcode's operands and parameters put into the formulas of `cost`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from backends.nash.isa import cost
from backends.nash.isa.records import View
from backends.nash.isa.rules import Operands, Params
from hbir.march import March

__all__ = ["CYCLES", "instruction_cycles"]


def _widest(v: Operands) -> View:
    return max(v.values(), key=lambda view: view.elements)


def _vector(march: March, v: Operands, p: Params) -> int:
    return cost.vector_cycles(
        march, _widest(v).elements, max(v[name].bits for name in ("a", "b", "x", "out") if name in v)
    )


def _conv(march: March, v: Operands, p: Params) -> int:
    kernel, groups = (p["kernel_h"], p["kernel_w"]), p["groups"]
    x, weight = v["x"], v["weight"]
    more_reads = sum(name in v for name in ("residual", "partial"))
    return cost.conv_cycles(
        march, v["out"].shape, kernel, x.shape[3] // groups, groups, x.bits, weight.bits, more_reads=more_reads
    )


def _matmul(march: March, v: Operands, p: Params) -> int:
    return cost.matmul_cycles(march, v["out"].shape, v["a"].shape[-1], v["a"].bits, v["b"].bits)


def _pool(march: March, v: Operands, p: Params) -> int:
    return cost.pool_cycles(march, v["out"].shape, (p["kernel_h"], p["kernel_w"]))


def _transfer(march: March, v: Operands, p: Params) -> int:
    far = v["dst"] if v["src"].space == "L1M" else v["src"]
    return cost.dma_cycles(march, far.nbytes, l2m=far.space == "L2M")


def _moved(march: March, v: Operands, p: Params) -> int:
    return cost.trans_cycles(march, v["dst"].nbytes)


def _vpu(march: March, v: Operands, p: Params) -> int:
    return cost.vpu_cycles(march, v["x"].elements)


CYCLES: Mapping[str, Callable[[March, Operands, Params], int]] = MappingProxyType(
    {
        "NOP": lambda march, v, p: march.issue_cycles,
        "LOAD": _transfer,
        "STORE": _transfer,
        "CONV": _conv,
        "MATMUL": _matmul,
        **dict.fromkeys(("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM", "CLAMP", "RESCALE", "TABLE8", "TABLE16"), _vector),
        "SEGMENTED": _vector,
        **dict.fromkeys(("REDUCE_SUM", "REDUCE_MAX", "REDUCE_MIN"), _vector),
        "SOFTMAX": lambda march, v, p: cost.softmax_cycles(march, v["x"].elements, v["x"].bits),
        "MAXPOOL": _pool,
        "AVGPOOL": _pool,
        "RESIZE_NEAREST": lambda march, v, p: cost.resize_cycles(march, v["out"].shape, 1),
        "RESIZE_BILINEAR": lambda march, v, p: cost.resize_cycles(march, v["out"].shape, 4),
        "COPY": _moved,
        "FILL": _moved,
        "QUANTIZE": _vpu,
        "DEQUANTIZE": _vpu,
        "ARGMAX": lambda march, v, p: cost.spu_cycles(march, v["x"].elements),
        "HOST_CALL": lambda march, v, p: cost.host_cycles(march, sum(view.nbytes for view in v.values())),
    }
)
"""For each opcode, its cycles on a march, as a function of operands and parameters."""


def instruction_cycles(march: March, opcode: str, operands: Operands, params: Params) -> int:
    """Cycles of one instruction when nothing else uses the memories."""
    return CYCLES[opcode](march, operands, params)
