"""Each opcode as a closure over arrays: parameters become arguments of the kernels that the interpreter uses too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from backends.nash.isa.rules import Params
from hbir import kernels
from hbir.kernels.softmax import softmax
from hbir.numerics import apply_scale

__all__ = ["BINDERS", "Arrays", "Step"]

Step: TypeAlias = Callable[[], object]
"""What carries an instruction out."""
Arrays: TypeAlias = Mapping[str, npt.NDArray[Any]]
"""An instruction's operands by name, as arrays over the memories."""


def _out(p: Params) -> dict[str, Any]:
    return {"zp_out": p["zp_out"], "lo": p["low"], "hi": p["high"]}


def _scaled_out(p: Params) -> dict[str, Any]:
    return {"multiplier": p["multiplier"], "shift": p["shift"], **_out(p)}


def _pad(p: Params) -> tuple[int, int, int, int]:
    return p["pad_top"], p["pad_left"], p["pad_bottom"], p["pad_right"]


def _copy(v: Arrays, p: Params) -> Step:
    src, dst = v["src"], v["dst"]
    if src.flags.c_contiguous and dst.flags.c_contiguous:
        # One flat copy of bytes: no loop over axes, whatever the element type.
        src, dst = src.reshape(-1).view(np.uint8), dst.reshape(-1).view(np.uint8)
    return partial(np.copyto, dst, src)


def _conv(v: Arrays, p: Params) -> Step:
    if "partial" in v:
        return _accumulated_conv(v, p)
    if v["out"].dtype == np.float32:
        return _float_conv(v, p)
    x, out, groups = v["x"], v["out"], p["groups"]
    extra: dict[str, Any] = {}
    if "residual" in v:
        extra = {
            "residual": v["residual"],
            "residual_zp": p["residual_zp"],
            "residual_multiplier": p["residual_multiplier"],
            "residual_shift": p["residual_shift"],
            "out_multiplier": p["output_multiplier"],
            "out_shift": p["output_shift"],
        }
    return kernels.bind_conv2d(
        *(x, v["weight"], v.get("bias"), v.get("multiplier"), v.get("shift")),
        weight_shape=(out.shape[3], p["kernel_h"], p["kernel_w"], x.shape[3] // groups),
        stride=(p["stride_h"], p["stride_w"]),
        pad=_pad(p),
        dilation=(p["dilation_h"], p["dilation_w"]),
        groups=groups,
        pad_value=p["pad_value"],
        **_out(p),
        **extra,
        out=out,
    )


def _float_conv(v: Arrays, p: Params) -> Step:
    """The sums as floats, each times the multiplier of its channel."""
    operands = {role: v[role] for role in ("x", "weight", "bias") if role in v}
    dtype = np.int32 if v["x"].itemsize == 1 else np.int64
    return kernels.bind_float_result(lambda y: _conv({**operands, "out": y}, p), dtype, v["multiplier"], v["out"])


def _accumulated_conv(v: Arrays, p: Params) -> Step:
    """A convolution onto partial sums: its own accumulators, the sum of both, then the epilogue of `_conv`."""
    partial_sums, out = v["partial"], v["out"]
    sums = np.empty(out.shape, partial_sums.dtype)
    own = _conv({**{role: v[role] for role in ("x", "weight", "bias") if role in v}, "out": sums}, p)
    finish = _epilogue(sums, v, p)

    def run() -> None:
        own()
        # Sums wrap as the accumulator does: only the last one has to fit, and that is proven.
        np.add(sums, partial_sums, out=sums)
        finish()

    return run


def _epilogue(sums: npt.NDArray[Any], v: Arrays, p: Params) -> Step:
    """The requantisation and residual addition of a convolution, on accumulators that lie in memory."""
    out = v["out"]
    if "multiplier" not in v:
        return partial(np.copyto, out, sums)
    if out.dtype == np.float32:
        return lambda: kernels.dequantize(sums, v["multiplier"], axis=out.ndim - 1, out=out)
    multiplier, shift = v["multiplier"], v["shift"]
    if "residual" not in v:
        return kernels.bind_rescale(sums, multiplier, shift, **_out(p), out=out)
    residual = v["residual"]

    def run() -> None:
        centred = residual.astype(np.int64) - p["residual_zp"]
        total = apply_scale(sums.astype(np.int64), multiplier, shift.astype(np.int64))
        total = total + apply_scale(centred, p["residual_multiplier"], p["residual_shift"])
        out[...] = np.clip(
            apply_scale(total, p["output_multiplier"], p["output_shift"]) + p["zp_out"], p["low"], p["high"]
        )

    return run


def _matmul(v: Arrays, p: Params) -> Step:
    a, b, zeros = v["a"], v["b"], {"zp_a": p["zp_a"], "zp_b": p["zp_b"]}
    if v["out"].dtype == np.float32:
        dtype = np.int32 if a.itemsize == 1 else np.int64
        return kernels.bind_float_result(
            lambda y: kernels.bind_matmul(a, b, **zeros, out=y), dtype, _scale(p), v["out"]
        )
    return kernels.bind_matmul(a, b, **zeros, **_scaled_out(p), out=v["out"])


def _sum(bind: Callable[..., Step], v: Arrays, p: Params) -> Step:
    inner = {key: p[key] for key in ("zp_a", "multiplier_a", "shift_a", "zp_b", "multiplier_b", "shift_b")}
    return bind(v["a"], v["b"], **inner, multiplier_out=p["multiplier"], shift_out=p["shift"], **_out(p), out=v["out"])


def _mul(v: Arrays, p: Params) -> Step:
    return kernels.bind_mul(v["a"], v["b"], zp_a=p["zp_a"], zp_b=p["zp_b"], **_scaled_out(p), out=v["out"])


def _rescale(v: Arrays, p: Params) -> Step:
    multiplier, shift = v.get("multiplier", p["multiplier"]), v.get("shift", p["shift"])
    return kernels.bind_rescale(v["x"], multiplier, shift, zp_in=p["zp_in"], **_out(p), out=v["out"])


def _axes(p: Params) -> tuple[int, ...]:
    return tuple(axis for axis in range(6) if p["axes"] >> axis & 1)


def _reduce_sum(v: Arrays, p: Params) -> Step:
    return kernels.bind_reduce_sum(v["x"], _axes(p), zp_in=p["zp_in"], **_scaled_out(p), out=v["out"])


def _softmax(v: Arrays, p: Params) -> Step:
    return partial(
        softmax, v["x"], v["exp_table"], v["reciprocal_table"], axis=p["axis"], **_scaled_out(p), out=v["out"]
    )


def _window(p: Params) -> dict[str, Any]:
    return {"kernel": (p["kernel_h"], p["kernel_w"]), "stride": (p["stride_h"], p["stride_w"]), "pad": _pad(p)}


def _avgpool(v: Arrays, p: Params) -> Step:
    return kernels.bind_avg_pool2d(v["x"], **_window(p), zp_in=p["zp_in"], **_out(p), out=v["out"])


def _nearest(v: Arrays, p: Params) -> Step:
    x, rows, columns, out = v["x"], v["rows"], v["columns"], v["out"]

    def run() -> None:
        # Indices are data: one from behind the map would wrap around in numpy.
        if rows.min() < 0 or columns.min() < 0:
            raise IndexError("RESIZE_NEAREST reads a row or column before the first")
        out[...] = x[:, rows[:, None], columns]

    return run


def _bilinear(v: Arrays, p: Params) -> Step:
    return kernels.bind_resize(
        v["x"],
        mode="bilinear",
        scale=(p["scale_yn"], p["scale_yd"], p["scale_xn"], p["scale_xd"]),
        offset=(p["offset_y"], p["offset_x"]),
        border=(p["border_y"], p["border_x"]),
        zp_in=p["zp_in"],
        **_scaled_out(p),
        out=v["out"],
    )


def _scale(p: Params) -> np.float32:
    return np.int32(p["scale"]).view(np.float32)


def _quantize(v: Arrays, p: Params) -> Step:
    return kernels.bind_quantize(v["x"], _scale(p), p["zp"], p["low"], p["high"], out=v["out"])


def _dequantize(v: Arrays, p: Params) -> Step:
    scales = v.get("scales")
    if scales is None:
        return kernels.bind_dequantize(v["x"], _scale(p), p["zp"], out=v["out"])
    # The scales are memory that is filled later, which a bound kernel need not look at again.
    return lambda: kernels.dequantize(v["x"], scales, p["zp"], axis=v["x"].ndim - 1, out=v["out"])


BINDERS: Mapping[str, Callable[[Arrays, Params], Step]] = MappingProxyType(
    {
        "LOAD": _copy,
        "STORE": _copy,
        "COPY": _copy,
        "FILL": lambda v, p: partial(v["dst"].fill, p["value"]),
        "CONV": _conv,
        "MATMUL": _matmul,
        "ADD": partial(_sum, kernels.bind_add),
        "SUB": partial(_sum, kernels.bind_sub),
        "MUL": _mul,
        "MAXIMUM": lambda v, p: kernels.bind_maximum(v["a"], v["b"], out=v["out"]),
        "MINIMUM": lambda v, p: kernels.bind_minimum(v["a"], v["b"], out=v["out"]),
        "CLAMP": lambda v, p: partial(np.clip, v["x"], p["low"], p["high"], out=v["out"]),
        "RESCALE": _rescale,
        "TABLE8": lambda v, p: kernels.bind_table_int8(v["x"], v["table"], out=v["out"]),
        "TABLE16": lambda v, p: kernels.bind_table_int16(v["x"], v["table"], **_scaled_out(p), out=v["out"]),
        "SEGMENTED": lambda v, p: kernels.bind_table_segmented(
            v["x"], v["starts"], v["spacings"], v["entries"], out=v["out"]
        ),
        "REDUCE_SUM": _reduce_sum,
        "REDUCE_MAX": lambda v, p: partial(np.max, v["x"], axis=_axes(p), keepdims=True, out=v["out"]),
        "REDUCE_MIN": lambda v, p: partial(np.min, v["x"], axis=_axes(p), keepdims=True, out=v["out"]),
        "SOFTMAX": _softmax,
        "MAXPOOL": lambda v, p: kernels.bind_max_pool2d(v["x"], **_window(p), out=v["out"]),
        "AVGPOOL": _avgpool,
        "RESIZE_NEAREST": _nearest,
        "RESIZE_BILINEAR": _bilinear,
        "QUANTIZE": _quantize,
        "DEQUANTIZE": _dequantize,
        "ARGMAX": lambda v, p: partial(kernels.argmax, v["x"], p["axis"], out=v["out"]),
    }
)
"""Every opcode but NOP, which does nothing, and HOST_CALL, which needs the model's host segment."""
