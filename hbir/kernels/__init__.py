"""Fast exact kernels, shared by the interpreter and the simulator: this is their face.

Activations are NHWC; every input and every `out` may be a strided view whose last axis is contiguous. A kernel
`f(..., out=None)` allocates its result unless it is given one; its bound form `bind_f(..., out=view)` resolves dtypes,
shapes and scratch memory once and returns a function that runs on whatever the buffers then hold.
Compiled code (numba) is loaded on first use.
"""

from __future__ import annotations

from hbir.kernels.boundary import bind_dequantize, bind_float_result, bind_quantize, dequantize, quantize
from hbir.kernels.conv import bind_conv2d, conv2d, conv2d_output_shape
from hbir.kernels.elementwise import (
    add,
    arithmetic_right_shift,
    bind_add,
    bind_maximum,
    bind_minimum,
    bind_mul,
    bind_rescale,
    bind_sub,
    clz,
    maximum,
    minimum,
    mul,
    rescale,
    sub,
)
from hbir.kernels.float_conv import float_avg_pool2d, float_conv2d, float_matmul, float_max_pool2d
from hbir.kernels.matmul import bind_matmul, matmul
from hbir.kernels.packing import pack_weight, packed_size, unpack_weight
from hbir.kernels.pool import avg_pool2d, bind_avg_pool2d, bind_max_pool2d, max_pool2d, pool2d_output_shape
from hbir.kernels.reduce import argmax, bind_reduce_sum, reduce_max, reduce_min, reduce_sum
from hbir.kernels.resize import bind_resize, resize, resize_output_shape
from hbir.kernels.table import bind_table_int8, bind_table_int16, bind_table_segmented, table_int8, table_int16

__all__ = [
    "add",
    "argmax",
    "arithmetic_right_shift",
    "avg_pool2d",
    "bind_add",
    "bind_avg_pool2d",
    "bind_conv2d",
    "bind_dequantize",
    "bind_float_result",
    "bind_matmul",
    "bind_max_pool2d",
    "bind_maximum",
    "bind_minimum",
    "bind_mul",
    "bind_quantize",
    "bind_reduce_sum",
    "bind_rescale",
    "bind_resize",
    "bind_sub",
    "bind_table_int8",
    "bind_table_int16",
    "bind_table_segmented",
    "clz",
    "conv2d",
    "conv2d_output_shape",
    "dequantize",
    "float_avg_pool2d",
    "float_conv2d",
    "float_matmul",
    "float_max_pool2d",
    "matmul",
    "max_pool2d",
    "maximum",
    "minimum",
    "mul",
    "pack_weight",
    "packed_size",
    "pool2d_output_shape",
    "quantize",
    "reduce_max",
    "reduce_min",
    "reduce_sum",
    "rescale",
    "resize",
    "resize_output_shape",
    "sub",
    "table_int8",
    "table_int16",
    "unpack_weight",
]
