"""The float graph: NHWC, typed, as close to the user's network as a compiler can work with."""

from __future__ import annotations

from xdsl.ir import Dialect

from hbir.dialects.hbir.cast import CastOp
from hbir.dialects.hbir.constant import ConstantOp, constant
from hbir.dialects.hbir.conv import Conv2dOp, ConvTranspose2dOp, LinearOp, MatmulOp
from hbir.dialects.hbir.elementwise import BINARY_OPS, AddOp, BinaryOp, DivOp, MaximumOp, MinimumOp, MulOp, PowOp, SubOp
from hbir.dialects.hbir.movement import ConcatOp, ExpandOp, PadOp, ReshapeOp, ResizeNearestOp, SliceOp, TransposeOp
from hbir.dialects.hbir.norm import BatchNormOp, SoftmaxOp
from hbir.dialects.hbir.pool import ArgmaxOp, AvgPoolOp, MaxPoolOp, ReduceOp, ResizeBilinearOp
from hbir.dialects.hbir.unary import ClipOp, FunctionOp
from hbir.ir.constants import BlobAttr

__all__ = [
    "AddOp",
    "ArgmaxOp",
    "AvgPoolOp",
    "BatchNormOp",
    "BinaryOp",
    "CastOp",
    "ClipOp",
    "ConcatOp",
    "ConstantOp",
    "Conv2dOp",
    "ConvTranspose2dOp",
    "DivOp",
    "ExpandOp",
    "FunctionOp",
    "Hbir",
    "LinearOp",
    "MatmulOp",
    "MaxPoolOp",
    "MaximumOp",
    "MinimumOp",
    "MulOp",
    "PadOp",
    "PowOp",
    "ReduceOp",
    "ReshapeOp",
    "ResizeBilinearOp",
    "ResizeNearestOp",
    "SliceOp",
    "SoftmaxOp",
    "SubOp",
    "TransposeOp",
    "constant",
]

Hbir = Dialect(
    "hbir",
    [
        *(
            ArgmaxOp,
            AvgPoolOp,
            BatchNormOp,
            CastOp,
            ClipOp,
            ConcatOp,
            ConstantOp,
            Conv2dOp,
            ConvTranspose2dOp,
            ExpandOp,
        ),
        *(FunctionOp, LinearOp, MatmulOp, MaxPoolOp, PadOp, ReduceOp, ReshapeOp, ResizeBilinearOp, ResizeNearestOp),
        *(SliceOp, SoftmaxOp, TransposeOp, *BINARY_OPS),
    ],
    [BlobAttr],
)
"""The dialect."""
