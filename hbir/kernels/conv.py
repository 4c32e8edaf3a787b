"""Integer convolution over packed weights, with requantisation and residual addition in its epilogue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from hbir.kernels.common import (
    Pad,
    Pair,
    accumulator_dtype,
    address,
    check_image,
    make_record,
    result_array,
    window_output,
)
from hbir.kernels.packing import LANES, is_depthwise, packed_size

__all__ = ["bind_conv2d", "conv2d", "conv2d_output_shape"]

Array = npt.NDArray[Any]
WeightShape = tuple[int, int, int, int]

_KINDS = {"bb", "hb", "hh"}  # type characters of activation and weight: int8 x int8, int16 x int8, int16 x int16
_RESULTS = (np.dtype(np.int8), np.dtype(np.int16), np.dtype(np.int32))


def conv2d_output_shape(
    x_shape: tuple[int, ...],
    weight_shape: WeightShape,
    *,
    stride: Pair = (1, 1),
    pad: Pad = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
) -> tuple[int, int, int, int]:
    """(N, OH, OW, Cout) of a convolution of (N, H, W, Cin) with (Cout, kh, kw, Cin/groups); pad (top, left, bottom, right)."""
    n, height, width, _ = x_shape
    channels, kernel_height, kernel_width, _ = weight_shape
    top, left, bottom, right = pad
    return (
        n,
        window_output(height, kernel_height, stride[0], top, bottom, dilation[0]),
        window_output(width, kernel_width, stride[1], left, right, dilation[1]),
        channels,
    )


def conv2d(
    x: Array,
    weight: Array,
    bias: npt.ArrayLike | None,
    multiplier: npt.ArrayLike | None,
    shift: npt.ArrayLike | None,
    *,
    weight_shape: WeightShape,
    stride: Pair = (1, 1),
    pad: Pad = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
    pad_value: int = 0,
    zp_out: int = 0,
    lo: int = -128,
    hi: int = 127,
    residual: Array | None = None,
    residual_multiplier: int = 0,
    residual_shift: int = 2,
    residual_zp: int = 0,
    out_multiplier: int = 1,
    out_shift: int = 2,
    out: Array | None = None,
    out_dtype: npt.DTypeLike | None = None,
) -> Array:
    """Convolution of NHWC integers: acc[n, oy, ox, c] = bias[c] + sum x * w, then rescaled into the result.

    `x` (N, H, W, Cin) int8 or int16; `weight` packed by `pack_weight` from `weight_shape` (Cout, kh, kw, Cin/groups), int8
    (int16 with int16 activations); `pad` (top, left, bottom, right) positions read `pad_value`. Zero points of x are
    folded into `bias` by the caller. `bias`, `multiplier`, `shift`: scalars or (Cout,).

    - `multiplier` None: the accumulator, int32 (int64 holding int48 for int16 activations).
    - no residual: clamp(apply_scale(acc, multiplier, shift) + zp_out, lo, hi).
    - with `residual` (N, OH, OW, Cout), TOSA's ADD pattern: clamp(apply_scale(apply_scale(acc, multiplier, shift)
      + apply_scale(residual - residual_zp, residual_multiplier, residual_shift), out_multiplier, out_shift) + zp_out, lo, hi).

    The caller has proven that accumulators fit int32 (int48) and that sums in the epilogue do.
    Result dtype: that of `out`, else `out_dtype`, else that of `x` (the accumulator's when raw).
    """
    shape = conv2d_output_shape(x.shape, weight_shape, stride=stride, pad=pad, dilation=dilation)
    sums = accumulator_dtype(x)
    y = result_array(out, shape, out_dtype, sums if multiplier is None else x.dtype)

    def vector(values: npt.ArrayLike | None, dtype: npt.DTypeLike) -> Array:
        return np.ascontiguousarray(np.broadcast_to(np.asarray(0 if values is None else values, dtype), shape[3:]))

    bind_conv2d(
        x if x.flags.c_contiguous or x.strides[3] == x.itemsize else np.ascontiguousarray(x),
        weight,
        vector(bias, sums),
        None if multiplier is None else vector(multiplier, np.int32),
        None if multiplier is None else vector(shift, np.int8),
        weight_shape=weight_shape,
        stride=stride,
        pad=pad,
        dilation=dilation,
        groups=groups,
        pad_value=pad_value,
        zp_out=zp_out,
        lo=lo,
        hi=hi,
        residual=residual,
        residual_multiplier=residual_multiplier,
        residual_shift=residual_shift,
        residual_zp=residual_zp,
        out_multiplier=out_multiplier,
        out_shift=out_shift,
        out=y,
    )()
    return y


def _is_scalar(x: Array, weight: Array, weight_shape: WeightShape, groups: int) -> bool:
    """Whether no tile computes this: int16 weights, or int16 activations each of which feeds several channels depthwise."""
    return x.itemsize == 2 and (
        weight.itemsize == 2 or (is_depthwise(weight_shape, groups) and weight_shape[0] != groups)
    )


def _nanoseconds(x: Array, weight: Array, weight_shape: WeightShape, groups: int, rows: int) -> float:
    """About what the convolution takes one thread, from measured times of a multiply-accumulate."""
    channels, kernel_height, kernel_width, cin = weight_shape
    depthwise = is_depthwise(weight_shape, groups)
    if _is_scalar(x, weight, weight_shape, groups):
        rate = 3.0 if depthwise else 0.45
    else:
        rate = (0.04 if depthwise else 0.007 if cin % 4 == 0 else 0.03) * x.itemsize
    if not depthwise:
        channels = groups * -(-channels // groups // LANES) * LANES
    return rate * rows * channels * kernel_height * kernel_width * cin


def _loops(scalar: bool, wide: bool, depthwise: bool) -> tuple[int, int]:
    """Addresses of the task and of the epilogue it calls; only what is needed is compiled."""
    from hbir.kernels.jit.tiles import finish

    if scalar:
        from hbir.kernels.jit.scalar import scalar_task

        return scalar_task, finish
    if wide:
        from hbir.kernels.jit.wide import wide_finish, wide_task

        return wide_task, wide_finish
    if depthwise:
        from hbir.kernels.jit.depthwise import depthwise_task

        return depthwise_task, finish
    from hbir.kernels.jit.dense import dense_task

    return dense_task, finish


def _check_vector(name: str, values: Array, channels: int, dtype: np.dtype[Any]) -> None:
    if values.dtype != dtype or values.shape != (channels,) or not values.flags.c_contiguous:
        raise ValueError(f"{name} must be contiguous {dtype} of shape ({channels},), not {values.dtype} {values.shape}")


def _check_operands(
    x: Array, weight: Array, bias: Array | None, multiplier: Array | None, shift: Array | None, residual: Array | None,
    out: Array, weight_shape: WeightShape, groups: int,
) -> None:  # fmt: skip
    """Everything the compiled loops take on trust, since they see only addresses. Raises ValueError."""
    channels = weight_shape[0]
    check_image("x", x)
    check_image("out", out)
    if weight_shape[3] * groups != x.shape[3] or channels % groups:
        raise ValueError(f"weight {weight_shape} in {groups} groups does not fit {x.shape[3]} input channels")
    if weight.shape != (packed_size(weight_shape, groups=groups),) or not weight.flags.c_contiguous:
        raise ValueError(f"weight is not the packed form of {weight_shape} in {groups} groups: {weight.shape}")
    if x.dtype.char + weight.dtype.char not in _KINDS:
        raise ValueError(
            f"activations of {x.dtype} with weights of {weight.dtype}: int8 x int8, int16 x int8 or int16 x int16"
        )
    if bias is not None:
        _check_vector("bias", bias, channels, accumulator_dtype(x))
    if (multiplier is None) != (shift is None) or (multiplier is None and residual is not None):
        raise ValueError("multiplier and shift come together, and a residual needs them")
    if multiplier is not None and shift is not None:
        _check_vector("multiplier", multiplier, channels, np.dtype(np.int32))
        _check_vector("shift", shift, channels, np.dtype(np.int8))
    if residual is not None:
        check_image("residual", residual)
        if residual.shape != out.shape:
            raise ValueError(f"residual has shape {residual.shape}, the result {out.shape}")
    allowed = (accumulator_dtype(x),) if multiplier is None else _RESULTS
    if out.dtype not in allowed or (residual is not None and residual.dtype not in allowed):
        raise ValueError(f"no epilogue into {out.dtype}: {', '.join(map(str, allowed))}")


def bind_conv2d(
    x: Array,
    weight: Array,
    bias: Array | None,
    multiplier: Array | None,
    shift: Array | None,
    *,
    weight_shape: WeightShape,
    stride: Pair = (1, 1),
    pad: Pad = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
    pad_value: int = 0,
    zp_out: int = 0,
    lo: int = -128,
    hi: int = 127,
    residual: Array | None = None,
    residual_multiplier: int = 0,
    residual_shift: int = 2,
    residual_zp: int = 0,
    out_multiplier: int = 1,
    out_shift: int = 2,
    out: Array,
) -> Callable[[], None]:
    """`conv2d` with everything resolved: call the result to run it on what the arrays then hold.

    `bias` int32 (int64 for int16 activations), `multiplier` int32 and `shift` int8 are contiguous (Cout,) views, as a binary
    stores them. Raises ValueError for operands the kernel cannot read.
    """
    from hbir.kernels.jit import workers as jit
    from hbir.kernels.jit.dense import CONV
    from hbir.kernels.jit.tiles import MODES, fused_block, row_block

    shape = conv2d_output_shape(x.shape, weight_shape, stride=stride, pad=pad, dilation=dilation)
    result_array(out, shape, None, out.dtype)
    _check_operands(x, weight, bias, multiplier, shift, residual, out, weight_shape, groups)
    channels, kernel_height, kernel_width, cin = weight_shape
    unused = np.zeros(channels, np.int64)  # stands for whatever vector is absent
    added = out if residual is None else residual
    line = -(-kernel_height * kernel_width * x.shape[3] // 16) * 16
    pad_lines = np.zeros((2, line), x.dtype)
    pad_lines[1] = pad_value
    mode = MODES.index("raw" if multiplier is None else "plain" if residual is None else "residual")

    rows, blocks = shape[0] * shape[1] * shape[2], -(-channels // groups // LANES)
    tasks = jit.split(_nanoseconds(x, weight, weight_shape, groups, rows), 2 * jit.threads())
    scalar = _is_scalar(x, weight, weight_shape, groups)
    loop, finish = _loops(scalar, x.itemsize == 2, is_depthwise(weight_shape, groups))
    # Weights that outgrow a core's second-level cache are split between the threads, instead of read by each of them.
    by_columns = groups == 1 and blocks >= 8 * tasks and (weight.size > 1 << 19 or rows < 24 * tasks) and not scalar
    tasks = min(tasks, blocks if by_columns else rows)
    x_n, x_h, x_w, _ = x.strides
    y_n, y_h, y_w, _ = out.strides
    residual_n, residual_h, residual_w, _ = added.strides
    fields = {
        "tasks": tasks, "by_columns": int(by_columns), "row_block": weight.itemsize if scalar else row_block,
        "fused_block": fused_block, "finish": finish,
        "kind": 4 * mode + min(out.itemsize, 4) - 1,
        "x": address(x), "x_n": x_n, "x_h": x_h, "x_w": x_w,
        "batch": x.shape[0], "height": x.shape[1], "width": x.shape[2], "cin": cin,
        "y": address(out), "y_n": y_n, "y_h": y_h, "y_w": y_w, "y_c": out.itemsize,
        "out_height": shape[1], "out_width": shape[2], "cout": channels,
        "residual": address(added), "residual_n": residual_n, "residual_h": residual_h, "residual_w": residual_w,
        "residual_c": added.itemsize, "weight": address(weight),
        "bias": address(unused if bias is None else bias),
        "multiplier": address(unused if multiplier is None else multiplier),
        "shift": address(unused if shift is None else shift),
        "zero_line": address(pad_lines), "pad_line": address(pad_lines) + line * x.itemsize,
        "groups": groups, "kernel_height": kernel_height, "kernel_width": kernel_width,
        "stride_y": stride[0], "stride_x": stride[1], "top": pad[0], "left": pad[1],
        "dilation_y": dilation[0], "dilation_x": dilation[1], "zp_out": zp_out, "lo": lo, "hi": hi,
        "residual_multiplier": residual_multiplier, "residual_shift": residual_shift, "residual_zp": residual_zp,
        "out_multiplier": out_multiplier, "out_shift": out_shift,
    }  # fmt: skip
    return jit.bind_task(
        loop, tasks, make_record(CONV, fields), x, weight, bias, multiplier, shift, residual, out, unused, pad_lines
    )
