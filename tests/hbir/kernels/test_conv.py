"""The convolution kernels against a slow, obvious one in int64."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbir.kernels import bind_conv2d, conv2d, conv2d_output_shape, pack_weight
from hbir.numerics import rescale

Array = npt.NDArray[Any]


def shift_right(x: Array, m: Any, s: Any) -> Array:
    return (x * m + (np.int64(1) << (s - 1))) >> s


def accumulate(
    x: Array, w: Array, bias: Any, stride: Any, pad: Any, dilation: Any, groups: int, pad_value: int
) -> Array:
    """Convolution by definition: every tap of every output position, in int64."""
    cout, kh, kw, cin = w.shape
    n, oh, ow, _ = conv2d_output_shape(x.shape, w.shape, stride=stride, pad=pad, dilation=dilation)
    top, left, bottom, right = pad
    padded = np.pad(x.astype(np.int64), ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=pad_value)
    acc = np.zeros((n, oh, ow, cout), np.int64)
    for oy in range(oh):
        for ox in range(ow):
            y0, x0 = oy * stride[0], ox * stride[1]
            window = padded[:, y0 : y0 + dilation[0] * (kh - 1) + 1 : dilation[0]]
            window = window[:, :, x0 : x0 + dilation[1] * (kw - 1) + 1 : dilation[1]]
            for group in range(groups):
                part = slice(group * cout // groups, (group + 1) * cout // groups)
                seen = window[..., group * cin : (group + 1) * cin].reshape(n, -1)
                acc[:, oy, ox, part] = seen @ w[part].astype(np.int64).reshape(cout // groups, -1).T
    return acc + bias


def whole_range(rng: np.random.Generator, dtype: Any, shape: tuple[int, ...]) -> Array:
    """Random integers, a third of them at the ends of the range."""
    info = np.iinfo(dtype)
    x = rng.integers(info.min, info.max + 1, shape)
    return np.where(rng.random(shape) < 0.3, rng.choice([info.min, info.max], shape), x).astype(dtype)


def strided(rng: np.random.Generator, values: Array) -> Array:
    """`values` as a tile of a larger NHWC buffer."""
    n, h, w, c = values.shape
    buffer = whole_range(rng, values.dtype, (n + 1, h + 3, 2 * w + 1, c + 5))
    view = buffer[1:, 2 : 2 + h, 1 : 1 + 2 * w : 2, 3 : 3 + c]
    view[...] = values
    return view


@st.composite
def problems(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["dense", "dense", "pointwise", "depthwise", "multiplied", "grouped"]))
    cin = draw(st.integers(1, 40))
    cout, groups = draw(st.integers(1, 150)), 1
    if kind == "depthwise":
        cout = groups = cin
    elif kind == "multiplied":
        cout, groups = cin * draw(st.integers(2, 4)), cin
    elif kind == "grouped":
        groups = draw(st.integers(2, 4))
        cin, cout = groups * draw(st.integers(1, 9)), groups * draw(st.integers(1, 20))
    side = 1 if kind == "pointwise" else 5
    kernel, stride, dilation = (
        (draw(st.integers(1, limit)), draw(st.integers(1, limit))) for limit in (side, 4, 3 if side > 1 else 1)
    )
    pad = tuple(draw(st.integers(0, 3)) for _ in range(4))
    sizes = [
        draw(st.integers(max(1, d * (k - 1) + 1), 12 + d * (k - 1))) for k, d in zip(kernel, dilation, strict=True)
    ]
    types = draw(st.sampled_from([(np.int8, np.int8)] * 3 + [(np.int16, np.int8)] * 3 + [(np.int16, np.int16)]))
    ends = np.iinfo(types[0])
    return {
        "x_shape": (draw(st.integers(1, 2)), *sizes, cin), "w_shape": (cout, *kernel, cin // groups), "types": types,
        "geometry": {
            "stride": stride, "pad": pad, "dilation": dilation, "groups": groups,
            "pad_value": draw(st.one_of(st.integers(-128, 127), st.integers(int(ends.min), int(ends.max)))),
        },
        "mode": draw(st.sampled_from(["raw", "plain", "plain", "residual"])),
        "out_dtype": draw(st.sampled_from([np.int8, np.int16, np.int32])),
        "residual_dtype": draw(st.sampled_from([np.int8, np.int16, np.int32])),
        "bias_unit": draw(st.sampled_from([1, 1000, 10**8])), "seed": draw(st.integers(0, 2**32)),
    }  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(problems())
def test_equals_the_definition(problem: dict[str, Any]) -> None:
    rng = np.random.default_rng(problem["seed"])
    geometry, mode = problem["geometry"], problem["mode"]
    x_type, w_type = problem["types"]
    x = strided(rng, whole_range(rng, x_type, problem["x_shape"]))
    w = whole_range(rng, w_type, problem["w_shape"])
    cout = w.shape[0]
    bias = rng.integers(-(10**6), 10**6, cout).astype(np.int32)
    if x_type == np.int16:
        bias = bias * np.int64(problem["bias_unit"])
    acc = accumulate(x, w, bias, **geometry)
    bits = max(1, int(np.abs(acc).max()).bit_length() - 8)
    m = rng.integers(2**13, 2**14, cout, dtype=np.int32) * 2 + 1
    s = rng.integers(max(2, 10 + bits), 17 + bits, cout).astype(np.int8)
    options: dict[str, Any] = {"weight_shape": w.shape, **geometry}
    if mode == "raw":
        expected, out_type = acc, bias.dtype
        m = s = None
    else:
        options |= {"zp_out": -3, "lo": -100, "hi": 120}
        expected, out_type = shift_right(acc, m.astype(np.int64), s.astype(np.int64)), problem["out_dtype"]
        if mode == "residual":
            residual = strided(rng, whole_range(rng, problem["residual_dtype"], acc.shape))
            options |= {
                "residual": residual, "residual_multiplier": 20011, "residual_shift": 12, "residual_zp": 5,
                "out_multiplier": 17001, "out_shift": 15,
            }  # fmt: skip
            other = shift_right(residual.astype(np.int64) - 5, np.int64(20011), np.int64(12))
            expected = shift_right(expected + other, np.int64(17001), np.int64(15))
        expected = np.clip(expected - 3, -100, 120)
    buffer = strided(rng, np.zeros(acc.shape, out_type))
    whole = buffer.base
    assert whole is not None
    around = whole.copy()
    run = bind_conv2d(x, pack_weight(w, groups=geometry["groups"]), bias, m, s, out=buffer, **options)
    run()
    assert np.array_equal(buffer, expected)
    result = buffer.copy()
    buffer[...] = 0
    assert np.array_equal(whole, around), "the kernel wrote outside its result"
    run()
    assert np.array_equal(buffer, result)


@settings(max_examples=150, deadline=None)
@given(
    m=st.one_of(
        st.integers(-(2**31) + 1, 2**31 - 1), st.integers(2**14, 2**15 - 1), st.sampled_from([1, -1, 2**15 - 1])
    ),
    s=st.one_of(st.integers(2, 62), st.sampled_from([15, 31, 32, 33])),
    zp=st.one_of(st.integers(-128, 127), st.sampled_from([2**15 - 1, 2**15, -(2**15), 2**31])),
    clamp=st.tuples(st.integers(-128, 0), st.integers(0, 127)),
    depthwise=st.booleans(),
)
def test_rounding_around_every_threshold(m: int, s: int, zp: int, clamp: tuple[int, int], depthwise: bool) -> None:
    """Accumulators just below, at and above each value where the result steps, and the ends of int32."""
    steps = [(((2 * q - 1) << s) // (2 * m) if m else q) + d for q in range(-130, 131) for d in (-1, 0, 1, 2)]
    ends = [-(2**31), -(2**31) + 1, -1, 0, 1, 2**31 - 2, 2**31 - 1]
    acc = np.array([a for a in steps if -(2**31) <= a < 2**31] + ends, np.int32)
    channels = len(acc)
    x = np.zeros((1, 1, 3, channels if depthwise else 4), np.int8)
    w = np.zeros((channels, 1, 1, 1 if depthwise else 4), np.int8)
    groups = channels if depthwise else 1
    lo, hi = clamp
    got = conv2d(
        x, pack_weight(w, groups=groups), acc, m, s, weight_shape=w.shape, groups=groups, zp_out=zp, lo=lo, hi=hi
    )
    assert np.array_equal(got[0, 0], np.tile(rescale(acc, m, s, 0, zp, lo, hi, dtype=np.int8), (3, 1)))


def test_extreme_accumulators_reach_the_ends_of_int32() -> None:
    x = np.full((1, 1, 1, 131071), -128, np.int8)
    w = np.full((17, 1, 1, 131071), -128, np.int8)
    acc = conv2d(x, pack_weight(w), None, None, None, weight_shape=w.shape)
    assert acc.dtype == np.int32
    assert (acc == 131071 * 128 * 128).all()
    low = conv2d(x, pack_weight(-1 - w), -131071 * 128 - 16384, None, None, weight_shape=w.shape)
    assert (low == -(131071 * 128 * 127) - 131071 * 128 - 16384).all()


@pytest.mark.parametrize(
    ("kernel", "cin"),
    [
        ((1, 1), 1020),
        ((1, 1), 1021),
        ((1, 1), 1024),
        ((1, 1), 2044),
        ((3, 3), 116),
        ((1, 2), 1024),
        ((2, 2), 340),
        ((3, 3), 227),
    ],
)
@pytest.mark.parametrize("rows", [1, 7])
def test_parts_of_wide_sums_fit_their_lanes(kernel: tuple[int, int], cin: int, rows: int) -> None:
    """Sixteen-bit activations at the end of their range, on both sides of what an int32 lane holds: 1020 elements of K."""
    shape, k = (33, *kernel, cin), kernel[0] * kernel[1] * cin
    x = np.full((1, kernel[0], kernel[1] + rows - 1, cin), -32768, np.int16)
    for weight in (-128, 127):
        packed = pack_weight(np.full(shape, weight, np.int8))
        acc = conv2d(x, packed, 5, None, None, weight_shape=shape)
        assert acc.dtype == np.int64
        assert (acc == -32768 * weight * k + 5).all()


@pytest.mark.parametrize("kernel", [(7, 73), (16, 32), (31, 33)])
def test_taps_of_wide_sums_fit_their_lanes(kernel: tuple[int, int]) -> None:
    """511, 512 and more taps of a depthwise convolution, and padding that is added to all of them."""
    shape, k = (18, *kernel, 1), kernel[0] * kernel[1]
    x = np.full((1, kernel[0], kernel[1], 18), -32768, np.int16)
    packed = pack_weight(np.full(shape, -128, np.int8), groups=18)
    for pad in ((0, 0, 0, 0), (3, 2, 1, 2)):
        acc = conv2d(x, packed, -7, None, None, weight_shape=shape, groups=18, pad=pad, pad_value=-32768)
        assert (acc == (k << 22) - 7).all()


@pytest.mark.parametrize(
    ("dtype", "h", "cin", "cout", "kernel", "groups"),
    [
        (np.int8, 56, 64, 64, 3, 1), (np.int8, 7, 512, 512, 3, 1), (np.int8, 28, 96, 96, 3, 96), (np.int8, 64, 3, 32, 3, 1),
        (np.int16, 28, 64, 48, 3, 1), (np.int16, 7, 256, 512, 3, 1), (np.int16, 28, 96, 96, 3, 96),
        (np.int16, 1, 512, 1000, 1, 1), (np.int16, 64, 3, 32, 3, 1), (np.int16, 28, 36, 68, 3, 4),
    ],
)  # fmt: skip
def test_layers_that_are_split_between_threads(
    dtype: Any, h: int, cin: int, cout: int, kernel: int, groups: int
) -> None:
    rng = np.random.default_rng(h)
    x, w = whole_range(rng, dtype, (1, h, h, cin)), whole_range(rng, np.int8, (cout, kernel, kernel, cin // groups))
    geometry: dict[str, Any] = {
        "stride": (1, 1),
        "pad": (1, 1, 1, 1),
        "dilation": (1, 1),
        "groups": groups,
        "pad_value": 7,
    }
    acc = conv2d(x, pack_weight(w, groups=groups), None, None, None, weight_shape=w.shape, **geometry)
    assert np.array_equal(acc, accumulate(x, w, np.int64(0), **geometry))


def test_a_bound_convolution_reads_its_buffers_again() -> None:
    x, w = np.ones((1, 2, 2, 4), np.int8), pack_weight(np.ones((2, 1, 1, 4), np.int8))
    bias, m, s = np.zeros(2, np.int32), np.full(2, 16385, np.int32), np.full(2, 14, np.int8)
    out = np.zeros((1, 2, 2, 2), np.int8)
    run = bind_conv2d(x, w, bias, m, s, weight_shape=(2, 1, 1, 4), out=out)
    run()
    assert (out == 4).all()
    x[...], bias[:] = 2, (10, 20)
    run()
    assert out[0, 0, 0].tolist() == [18, 28]
    w[:] = 0
    run()
    assert out[0, 0, 0].tolist() == [10, 20]
    s[:] = 15
    run()
    assert out[0, 0, 0].tolist() == [5, 10]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": np.zeros(63, np.int8)}, "packed form"),
        ({"bias": np.zeros(2, np.int64)}, "bias"),
        ({"multiplier": np.zeros(2, np.int16)}, "multiplier"),
        ({"shift": None}, "come together"),
        ({"x": np.zeros((1, 2, 2, 3), np.int8)}, "input channels"),
        ({"x": np.zeros((1, 2, 2, 4), np.int32)}, "activations"),
        ({"x": np.zeros((1, 2, 2, 8), np.int8)[..., ::2]}, "contiguous channels"),
        ({"out": np.zeros((1, 2, 2, 3), np.int8)}, "shape"),
        ({"out": np.zeros((1, 2, 2, 2), np.uint8)}, "epilogue"),
    ],
)
def test_operands_that_cannot_be_read_are_refused(change: dict[str, Any], message: str) -> None:
    operands: dict[str, Any] = {
        "x": np.zeros((1, 2, 2, 4), np.int8), "weight": np.zeros(64, np.int8), "bias": np.zeros(2, np.int32),
        "multiplier": np.zeros(2, np.int32), "shift": np.full(2, 2, np.int8), "out": np.zeros((1, 2, 2, 2), np.int8),
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        bind_conv2d(**(operands | change), weight_shape=(2, 1, 1, 4))


def test_processors_without_dot_products_give_the_same(tmp_path: Path) -> None:
    """The portable tiles, compiled for the plainest processor of this architecture in a process of its own."""
    rng = np.random.default_rng(1)
    x, w = whole_range(rng, np.int8, (1, 9, 9, 12)), whole_range(rng, np.int8, (70, 3, 3, 12))
    depthwise = whole_range(rng, np.int8, (12, 3, 3, 1))
    wide = whole_range(rng, np.int16, (1, 9, 9, 12))
    np.savez(tmp_path / "in.npz", x=x, w=w, d=depthwise, wide=wide)
    script = (
        "import sys, numpy as np\n"
        "from hbir.kernels import conv2d, pack_weight\n"
        "f = np.load(sys.argv[1])\n"
        "o = dict(pad=(1, 1, 1, 1), pad_value=3)\n"
        "w, d = pack_weight(f['w']), pack_weight(f['d'], groups=12)\n"
        "dense, depthwise = dict(weight_shape=f['w'].shape, **o), dict(weight_shape=f['d'].shape, groups=12, **o)\n"
        "a = conv2d(f['x'], w, 5, 20001, 24, **dense)\n"
        "b = conv2d(f['x'], d, 5, 20001, 20, **depthwise)\n"
        "c = conv2d(f['wide'], w, 5, 20001, 24, lo=-32768, hi=32767, **dense)\n"
        "d = conv2d(f['wide'], d, 5, 20001, 20, lo=-32768, hi=32767, **depthwise)\n"
        "np.savez(sys.argv[2], a=a, b=b, c=c, d=d)\n"
    )
    environment = os.environ | {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(tmp_path)}
    environment["PYTHONPATH"] = str(Path(__file__).parents[3])
    command = [sys.executable, "-c", script, str(tmp_path / "in.npz"), str(tmp_path / "out.npz")]
    subprocess.run(command, env=environment, check=True)
    got = np.load(tmp_path / "out.npz")
    for names, own, groups, shift in (("ac", w, 1, 24), ("bd", depthwise, 12, 20)):
        geometry: dict[str, Any] = {"pad": (1, 1, 1, 1), "pad_value": 3, "groups": groups}
        for name, image in zip(names, (x, wide), strict=True):
            acc = accumulate(image, own, np.int64(5), (1, 1), dilation=(1, 1), **geometry)
            ends = np.iinfo(image.dtype)
            expected = np.clip(shift_right(acc, np.int64(20001), np.int64(shift)), ends.min, ends.max)
            assert np.array_equal(got[name], expected), name
