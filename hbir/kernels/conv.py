"""Integer convolution: the packed-weight kernel that the interpreter and the simulator share."""
from __future__ import annotations
from functools import partial
import numpy as np
from hbir.kernels.common import accumulator_dtype, result_array, window_output
from hbir.kernels.packing import unpack_weight
from hbir.numerics.rescale import apply_scale
__all__ = ["bind_conv2d", "conv2d", "conv2d_output_shape"]

def conv2d_output_shape(x_shape, weight_shape, *, stride=(1, 1), pad=(0, 0, 0, 0), dilation=(1, 1)):
    n, h, w, _ = x_shape
    top, left, bottom, right = pad
    return (n, window_output(h, weight_shape[1], stride[0], top, bottom, dilation[0]),
            window_output(w, weight_shape[2], stride[1], left, right, dilation[1]), weight_shape[0])

def conv2d(x, weight, bias, multiplier, shift, *, weight_shape, stride=(1, 1), pad=(0, 0, 0, 0), dilation=(1, 1), groups=1,
           pad_value=0, zp_out=0, lo=-128, hi=127, residual=None, residual_multiplier=0, residual_shift=2, residual_zp=0,
           out_multiplier=1, out_shift=2, out=None, out_dtype=None):
    w = unpack_weight(weight, weight_shape, groups=groups)
    cout, kh, kw, cin = weight_shape
    shape = conv2d_output_shape(x.shape, weight_shape, stride=stride, pad=pad, dilation=dilation)
    top, left, bottom, right = pad
    xp = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=pad_value).astype(np.float64)
    n, oh, ow, _ = shape
    acc = np.zeros(shape, np.int64)
    og = cout // groups
    for i in range(kh):
        for j in range(kw):
            t = xp[:, i * dilation[0]: i * dilation[0] + (oh - 1) * stride[0] + 1: stride[0],
                   j * dilation[1]: j * dilation[1] + (ow - 1) * stride[1] + 1: stride[1]]
            if cin == 1 and groups > 1:
                acc += (np.repeat(t, og, axis=3) * w[:, i, j, 0].astype(np.float64)).astype(np.int64)
            else:
                for g in range(groups):
                    acc[..., g * og:(g + 1) * og] += (t[..., g * cin:(g + 1) * cin] @ w[g * og:(g + 1) * og, i, j].T.astype(np.float64)).astype(np.int64)
    if bias is not None:
        acc += np.asarray(bias, np.int64)
    default = x.dtype if multiplier is not None else accumulator_dtype(x, weight)
    y = result_array(out, shape, out_dtype, default)
    if multiplier is not None:
        acc = apply_scale(acc, np.asarray(multiplier, np.int64), np.asarray(shift, np.int64))
        if residual is not None:
            acc = apply_scale(acc + apply_scale(residual.astype(np.int64) - residual_zp, np.int64(residual_multiplier), np.int64(residual_shift)), np.int64(out_multiplier), np.int64(out_shift))
        acc = np.clip(acc + zp_out, lo, hi)
    y[...] = acc
    return y

def bind_conv2d(x, weight, bias, multiplier, shift, *, out, **options):
    return partial(conv2d, x, weight, bias, multiplier, shift, out=out, **options)
