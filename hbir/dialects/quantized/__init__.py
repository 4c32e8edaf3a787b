"""Exact integers: every operation carries its multipliers and shifts, and its types carry the scales they came from."""

from __future__ import annotations

from xdsl.ir import Dialect

from hbir.dialects.quantized.boundary import DequantizeOp, QuantizeOp, RescaleOp
from hbir.dialects.quantized.common import QuantizedOperation
from hbir.dialects.quantized.conv import Conv2dOp, MatmulOp
from hbir.dialects.quantized.elementwise import AddOp, ClampOp, MulOp, SubOp
from hbir.dialects.quantized.pool import AvgPoolOp, ReduceSumOp, ResizeBilinearOp
from hbir.dialects.quantized.softmax import SoftmaxOp
from hbir.dialects.quantized.table import FunctionOp, InterpolateOp, SegmentedOp, TableOp

__all__ = [
    "AddOp",
    "AvgPoolOp",
    "ClampOp",
    "Conv2dOp",
    "DequantizeOp",
    "FunctionOp",
    "InterpolateOp",
    "MatmulOp",
    "MulOp",
    "Quantized",
    "QuantizedOperation",
    "QuantizeOp",
    "ReduceSumOp",
    "RescaleOp",
    "ResizeBilinearOp",
    "SegmentedOp",
    "SoftmaxOp",
    "SubOp",
    "TableOp",
]

Quantized = Dialect(
    "quantized",
    [
        *(
            AddOp,
            AvgPoolOp,
            ClampOp,
            Conv2dOp,
            DequantizeOp,
            FunctionOp,
            InterpolateOp,
            MatmulOp,
            MulOp,
            QuantizeOp,
            ReduceSumOp,
        ),
        *(RescaleOp, ResizeBilinearOp, SegmentedOp, SoftmaxOp, SubOp, TableOp),
    ],
)
"""The dialect."""
