"""Every integer kernel against Arm's reference model with `==`, on drawn shapes, parameters and extreme values."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hbir import kernels
from hbir.kernels.softmax import softmax
from hbir.numerics import lut
from hbir.numerics.rescale import rescale
from hbir.testing.oracles import tosa

Array = npt.NDArray[Any]
Draw = st.DrawFn
RANGES = {np.int8: (-128, 127), np.int16: (-32768, 32767)}

integer_dtypes = st.sampled_from([np.int8, np.int16])
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
pads = st.tuples(*[st.integers(0, 2)] * 4)
sizes = st.integers(1, 9)
many = settings(max_examples=100, deadline=None)


def factor(bits: int) -> st.SearchStrategy[int]:
    """Multipliers of exactly `bits` bits: odd ones, as the compiler makes them, and powers of two, which have ties."""
    return st.one_of(
        st.integers(1 << (bits - 2), (1 << (bits - 1)) - 1).map(lambda half: 2 * half + 1),
        st.just(1 << (bits - 1)),
    )


@st.composite
def filled(draw: Draw, shape: tuple[int, ...], dtype: Any, low: int | None = None, high: int | None = None) -> Array:
    """Values of `dtype` in [low, high]: spread evenly, only the two ends, or small."""
    info = np.iinfo(dtype)
    low, high = int(info.min) if low is None else low, int(info.max) if high is None else high
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    style = draw(st.sampled_from(["even", "ends", "small"]))
    if style == "ends":
        return np.where(rng.integers(0, 2, shape) == 0, low, high).astype(dtype)
    if style == "small":
        low, high = max(low, -3), min(high, 3)
    return rng.integers(low, high, shape, endpoint=True).astype(dtype)


@st.composite
def limits(draw: Draw, dtype: Any) -> dict[str, int]:
    """`lo` and `hi` of a result: often the whole type, else a clamp inside."""
    low, high = RANGES[dtype]
    if draw(st.booleans()):
        return {"lo": low, "hi": high}
    bounds = sorted([draw(st.integers(low, high)), draw(st.integers(low, high))])
    return {"lo": bounds[0], "hi": bounds[1]}


def zero_point(dtype: Any) -> st.SearchStrategy[int]:
    """TOSA gives int16 no zero point."""
    return st.integers(-128, 127) if dtype is np.int8 else st.just(0)


def same(got: Array, expected: Array) -> None:
    assert got.shape == expected.shape
    assert np.array_equal(got, expected)


@st.composite
def convolutions(draw: Draw) -> dict[str, Any]:
    """Dense, grouped and depthwise convolutions whose window fits at least once."""
    dtype = draw(integer_dtypes)
    kernel, stride, dilation, pad = draw(pairs), draw(pairs), draw(pairs), draw(pads)
    least = [max(dilation[i] * (kernel[i] - 1) + 1 - pad[i] - pad[i + 2], 1) for i in (0, 1)]
    height, width = (draw(st.integers(size, size + 7)) for size in least)
    kind = draw(st.sampled_from(["dense", "grouped", "depthwise"]))
    groups = 1 if kind == "dense" else draw(st.integers(2, 5))
    inputs = 1 if kind == "depthwise" else draw(st.integers(2, 5) if kind == "grouped" else st.integers(1, 40))
    outputs = groups * draw(st.integers(1, 3) if groups > 1 else st.integers(1, 35))
    x = draw(filled((draw(st.integers(1, 2)), height, width, groups * inputs), dtype))
    # at most 9 * 40 terms of 127 * 32768: below 2^31, as TOSA's wide rescale of an int16 convolution needs
    weight = draw(filled((outputs, *kernel, inputs), np.int8, -127, 127))
    bias = draw(filled((outputs,), np.int32, -(1 << 20), 1 << 20))
    window = {"stride": stride, "pad": pad, "dilation": dilation, "groups": groups}
    return {"x": x, "weight": weight, "bias": bias, "zp_in": draw(zero_point(dtype)), "window": window}


def packed(case: dict[str, Any]) -> tuple[tuple[Array, Array, Array], dict[str, Any]]:
    """A convolution's operands as the kernel wants them: packed weight, the input's zero point in the bias and the
    padding."""
    weight, zp, groups = case["weight"], case["zp_in"], case["window"]["groups"]
    bias = case["bias"].astype(np.int64) - zp * weight.astype(np.int64).sum(axis=(1, 2, 3))
    operands = case["x"], kernels.pack_weight(weight, groups=groups), bias
    return operands, {**case["window"], "weight_shape": weight.shape, "pad_value": zp}


@many
@given(convolutions())
def test_convolution_accumulator(case: dict[str, Any]) -> None:
    (x, weight, bias), options = packed(case)
    same(
        kernels.conv2d(x, weight, bias, None, None, **options),
        tosa.conv2d(x, case["weight"], case["bias"], None, None, zp_in=case["zp_in"], **case["window"]),
    )


@many
@given(convolutions(), st.data())
def test_rescaled_convolution(case: dict[str, Any], data: st.DataObject) -> None:
    (x, weight, bias), options = packed(case)
    channels, dtype = bias.size, x.dtype.type
    wide = dtype is np.int16 and data.draw(st.booleans())
    # |accumulator| < 2^31: a wide multiplier needs shift >= 33, a narrow one a result below 2^31
    multiplier = np.array([data.draw(factor(31 if wide else 15)) for _ in range(channels)])
    shift = np.array([data.draw(st.integers(33, 50) if wide else st.integers(16, 34)) for _ in range(channels)])
    after = {"zp_out": data.draw(zero_point(dtype)), **data.draw(limits(dtype))}
    expected = tosa.conv2d(
        x, case["weight"], case["bias"], multiplier, shift, zp_in=case["zp_in"], **case["window"], **after
    )
    same(kernels.conv2d(x, weight, bias, multiplier, shift, **options, **after), expected)
    memory = np.zeros((*expected.shape[:3], 2 * channels + 3), dtype)
    view = memory[..., 2 : 2 + channels]
    kinds = np.int32 if dtype is np.int8 else np.int64
    run = kernels.bind_conv2d(
        x, weight, bias.astype(kinds), multiplier.astype(np.int32), shift.astype(np.int8), out=view, **options, **after
    )
    run()
    same(view, expected)
    assert not memory[..., :2].any() and not memory[..., 2 + channels :].any()


@many
@given(convolutions().filter(lambda case: case["x"].dtype == np.int8), st.data())
def test_convolution_with_residual(case: dict[str, Any], data: st.DataObject) -> None:
    (x, weight, bias), options = packed(case)
    channels = bias.size
    shape = kernels.conv2d_output_shape(
        x.shape, case["weight"].shape, **{k: v for k, v in case["window"].items() if k != "groups"}
    )
    multiplier = np.array([data.draw(factor(15)) for _ in range(channels)])
    shift = np.array([data.draw(st.integers(16, 30)) for _ in range(channels)])
    after = {
        "residual": data.draw(filled(shape, np.int8)),
        "residual_multiplier": data.draw(factor(15)),
        "residual_shift": data.draw(st.integers(4, 16)),
        "residual_zp": data.draw(zero_point(np.int8)),
        "out_multiplier": data.draw(factor(15)),
        "out_shift": data.draw(st.integers(18, 34)),
        "zp_out": data.draw(zero_point(np.int8)),
        **data.draw(limits(np.int8)),
    }
    same(
        kernels.conv2d(x, weight, bias, multiplier, shift, **options, **after),
        tosa.conv2d(x, case["weight"], case["bias"], multiplier, shift, zp_in=case["zp_in"], **case["window"], **after),
    )


@many
@given(st.data(), integer_dtypes, sizes, st.integers(1, 40), sizes)
def test_matmul(data: st.DataObject, dtype: Any, rows: int, inner: int, columns: int) -> None:
    batch_a, batch_b = data.draw(
        st.sampled_from([((), ()), ((3,), (3,)), ((2, 1), (3,)), ((), (4,)), ((2, 3), (2, 3))])
    )
    bound = None if dtype is np.int8 else 4000  # 40 * 4000^2 < 2^31, as a wide rescale of TOSA's needs
    a = data.draw(filled((*batch_a, rows, inner), dtype, bound and -bound, bound))
    b = data.draw(filled((*batch_b, inner, columns), dtype, bound and -bound, bound))
    zeros = {"zp_a": data.draw(zero_point(dtype)), "zp_b": data.draw(zero_point(dtype))}
    same(kernels.matmul(a, b, **zeros), tosa.matmul(a, b, **zeros))
    wide = dtype is np.int16
    after = {
        "multiplier": data.draw(factor(31 if wide else 15)),
        "shift": data.draw(st.integers(33, 50) if wide else st.integers(16, 34)),
        "zp_out": data.draw(zero_point(dtype)),
        **data.draw(limits(dtype)),
    }
    same(kernels.matmul(a, b, **zeros, **after), tosa.matmul(a, b, **zeros, **after))


@st.composite
def poolings(draw: Draw) -> tuple[Array, tuple[int, int], dict[str, Any]]:
    """TOSA wants each padding below the kernel size, so every window holds a value."""
    dtype, kernel, stride = draw(integer_dtypes), draw(pairs), draw(pairs)
    pad = tuple(draw(st.integers(0, kernel[axis] - 1)) for axis in (0, 1, 0, 1))
    height, width = (draw(st.integers(kernel[axis], kernel[axis] + 8)) for axis in (0, 1))
    x = draw(filled((draw(st.integers(1, 2)), height, width, draw(st.integers(1, 40))), dtype))
    return x, kernel, {"stride": stride, "pad": pad}


@many
@given(poolings())
def test_max_pool(case: tuple[Array, tuple[int, int], dict[str, Any]]) -> None:
    x, kernel, window = case
    same(kernels.max_pool2d(x, kernel, **window), tosa.max_pool2d(x, kernel, **window))


@many
@given(poolings(), st.data())
def test_average_pool(case: tuple[Array, tuple[int, int], dict[str, Any]], data: st.DataObject) -> None:
    x, kernel, window = case
    dtype = x.dtype.type
    after = {"zp_in": data.draw(zero_point(dtype)), "zp_out": data.draw(zero_point(dtype)), **data.draw(limits(dtype))}
    same(kernels.avg_pool2d(x, kernel, **window, **after), tosa.avg_pool2d(x, kernel, **window, **after))


@st.composite
def operand_pairs(draw: Draw, dtype: Any) -> tuple[Array, Array]:
    """Two operands whose shapes broadcast."""
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    other = tuple(size if draw(st.booleans()) else 1 for size in shape)[draw(st.integers(0, len(shape) - 1)) :]
    first, second = draw(filled(shape, dtype)), draw(filled(other, dtype))
    return (first, second) if draw(st.booleans()) else (second, first)


@many
@given(st.data(), integer_dtypes, st.sampled_from(["add", "sub"]))
def test_rescaled_sum(data: st.DataObject, dtype: Any, name: str) -> None:
    a, b = data.draw(operand_pairs(dtype))
    wide = dtype is np.int16
    # 16-bit inputs leave 14 bits of headroom, 8-bit inputs 20: m / 2^s in [2^5, 2^13) keeps the sum inside int32
    inner = st.integers(18, 24) if wide else st.integers(3, 10)
    scales = {
        f"{key}_{side}": data.draw(strategy)
        for side in ("a", "b")
        for key, strategy in (("multiplier", factor(31 if wide else 15)), ("shift", inner))
    }
    scales |= {
        "multiplier_out": data.draw(factor(31 if wide else 15)),
        "shift_out": data.draw(st.integers(34 if wide else 18, 50)),
    }
    zeros = {
        "zp_a": data.draw(zero_point(dtype)),
        "zp_b": data.draw(zero_point(dtype)),
        "zp_out": data.draw(zero_point(dtype)),
    }
    if wide:  # the reach of TOSA's scale32: inputs below 2^(shift - 1), sums of two below 2^31
        scales["multiplier_a"] = scales["multiplier_b"] = (1 << 30) + 1
        scales["shift_a"], scales["shift_b"] = (max(scales[key], 18) for key in ("shift_a", "shift_b"))
    after = data.draw(limits(dtype))
    same(
        getattr(kernels, name)(a, b, **scales, **zeros, **after), getattr(tosa, name)(a, b, **scales, **zeros, **after)
    )


@many
@given(st.data(), integer_dtypes)
def test_product(data: st.DataObject, dtype: Any) -> None:
    a, b = data.draw(operand_pairs(dtype))
    zeros = {"zp_a": data.draw(zero_point(dtype)), "zp_b": data.draw(zero_point(dtype))}
    same(kernels.mul(a, b, **zeros), tosa.mul(a, b, multiplier=None, shift=None, **zeros))
    wide = dtype is np.int16
    after = {
        "multiplier": data.draw(factor(31 if wide else 15)),
        "shift": data.draw(st.integers(33, 50) if wide else st.integers(8, 30)),
        "zp_out": data.draw(zero_point(dtype)),
        **data.draw(limits(dtype)),
    }
    same(kernels.mul(a, b, **zeros, **after), tosa.mul(a, b, **zeros, **after))


@many
@given(st.data(), integer_dtypes, st.sampled_from(["maximum", "minimum"]))
def test_extremes_of_two(data: st.DataObject, dtype: Any, name: str) -> None:
    a, b = data.draw(operand_pairs(dtype))
    same(getattr(kernels, name)(a, b), getattr(tosa, name)(a, b))


@many
@given(st.data(), st.sampled_from([np.int8, np.int16, np.int32]), integer_dtypes, st.booleans())
def test_rescale(data: st.DataObject, dtype: Any, result: Any, wide: bool) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    x = data.draw(filled(shape, dtype))
    bits = {np.int8: 9, np.int16: 17, np.int32: 32}[dtype]
    channels = data.draw(st.sampled_from([1, shape[-1]]))
    # the scaled value stays in int32; with scale32 the input also stays below 2^(shift - 1)
    least = max(bits + 2, 2) if wide else max(bits + 15 - 31, 2)
    multiplier = np.array([data.draw(factor(31 if wide else 15)) for _ in range(channels)])
    shift = np.array([data.draw(st.integers(least, 62)) for _ in range(channels)])
    zeros = {
        "zp_in": data.draw(zero_point(dtype if dtype is not np.int32 else np.int16)),
        "zp_out": data.draw(zero_point(result)),
    }
    after = {**zeros, **data.draw(limits(result)), "out_dtype": result}
    expected = tosa.rescale(x, multiplier, shift, **after)
    same(kernels.rescale(x, multiplier, shift, **after), expected)
    same(
        rescale(x, multiplier, shift, *(after[key] for key in ("zp_in", "zp_out", "lo", "hi")), dtype=result), expected
    )


@many
@given(st.data(), st.sampled_from([np.int8, np.int16, np.int32]), st.booleans())
def test_arithmetic_right_shift(data: st.DataObject, dtype: Any, rounded: bool) -> None:
    x = data.draw(filled((5, 7), dtype))
    amount = data.draw(
        filled(data.draw(st.sampled_from([(5, 7), (1, 7), (1,)])), dtype, 0, 8 * np.dtype(dtype).itemsize - 1)
    )
    same(
        kernels.arithmetic_right_shift(x, amount, round=rounded), tosa.arithmetic_right_shift(x, amount, round=rounded)
    )


@many
@given(st.data(), st.integers(0, 31))
def test_leading_zeros(data: st.DataObject, bits: int) -> None:
    x = data.draw(filled((4, 9), np.int32)) >> bits
    same(kernels.clz(x), tosa.clz(x))


@st.composite
def reductions(draw: Draw, dtype: Any) -> tuple[Array, tuple[int, ...], bool]:
    shape = tuple(draw(st.lists(st.integers(1, 7), min_size=1, max_size=4)))
    axes = draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, max_size=len(shape), unique=True))
    signed = tuple(axis - len(shape) if draw(st.booleans()) else axis for axis in axes)
    return draw(filled(shape, dtype)), signed, draw(st.booleans())


@many
@given(st.data(), integer_dtypes)
def test_reduce_sum(data: st.DataObject, dtype: Any) -> None:
    x, axes, keepdims = data.draw(reductions(dtype))
    options = {"keepdims": keepdims, "zp_in": data.draw(zero_point(dtype))}
    same(kernels.reduce_sum(x, axes, **options), tosa.reduce_sum(x, axes, **options))
    wide = dtype is np.int16
    after = {
        "multiplier": data.draw(factor(31 if wide else 15)),
        "shift": data.draw(st.integers(33, 50) if wide else st.integers(8, 30)),
        "zp_out": data.draw(zero_point(dtype)),
        **data.draw(limits(dtype)),
    }
    same(kernels.reduce_sum(x, axes, **options, **after), tosa.reduce_sum(x, axes, **options, **after))


@many
@given(st.data(), integer_dtypes, st.sampled_from(["reduce_max", "reduce_min"]))
def test_reduce_extremes(data: st.DataObject, dtype: Any, name: str) -> None:
    x, axes, keepdims = data.draw(reductions(dtype))
    same(getattr(kernels, name)(x, axes, keepdims=keepdims), getattr(tosa, name)(x, axes, keepdims=keepdims))


@many
@given(st.data(), integer_dtypes)
def test_argmax(data: st.DataObject, dtype: Any) -> None:
    x, axes, keepdims = data.draw(reductions(dtype))
    same(kernels.argmax(x, axes[0], keepdims=keepdims), tosa.argmax(x, axes[0], keepdims=keepdims))


@many
@given(st.data(), integer_dtypes)
def test_table_of_int8(data: st.DataObject, entries: Any) -> None:
    x, table = data.draw(filled((3, 5, 7), np.int8)), data.draw(filled((256,), entries))
    same(kernels.table_int8(x, table), tosa.table_int8(x, table))


@many
@given(st.data(), integer_dtypes)
def test_table_of_int16(data: st.DataObject, result: Any) -> None:
    x, table = data.draw(filled((3, 5, 7), np.int16)), data.draw(filled((513,), np.int16, -16384, 16383))
    raw = tosa.table_int16(x, table)
    same(kernels.table_int16(x, table), raw)
    same(lut.InterpolatedTable(table, 1 << 30, 37).interpolate(x), raw)
    after = {
        "multiplier": data.draw(factor(31)),
        "shift": data.draw(st.integers(34, 50)),
        "zp_out": data.draw(zero_point(result)),
        **data.draw(limits(result)),
        "out_dtype": result,
    }
    same(kernels.table_int16(x, table, **after), tosa.table_int16(x, table, **after))


def test_generated_tables_through_tosa() -> None:
    """The whole int16 range through TABLE and RESCALE is what the table's worst error was measured on."""
    x = np.arange(-32768, 32768).astype(np.int16)
    for name in ("sigmoid", "gelu", "sin"):
        table = lut.int16_interpolated_table(name, 8 / 32768, 0, 2 / 32768, 0)
        through = tosa.table_int16(x, table.entries, multiplier=table.multiplier, shift=table.shift)
        same(table.evaluate(x), through)
        same(kernels.table_int16(x, table.entries, multiplier=table.multiplier, shift=table.shift), through)


@st.composite
def resizings(draw: Draw) -> tuple[Array, dict[str, Any]]:
    """Scales n/d with TOSA's bounds on offset and border, and a border that makes the output size whole."""
    dtype = draw(integer_dtypes)
    height, width = draw(sizes), draw(sizes)
    scale, offset, border = [], [], []
    for size in (height, width):
        n, d = draw(st.integers(1, 8)), draw(st.integers(1, 8))
        start = draw(st.integers(-n, n - 1))
        span = (size - 1) * n - start
        whole = [end for end in range(-16 * n, n) if span + end >= 0 and (span + end) % d == 0]
        assume(whole)
        scale += [n, d]
        offset.append(start)
        border.append(draw(st.sampled_from(whole)))
    x = draw(filled((1, height, width, draw(st.integers(1, 5))), dtype))
    mode = draw(st.sampled_from(["nearest", "bilinear"]))
    return x, {"mode": mode, "scale": tuple(scale), "offset": tuple(offset), "border": tuple(border)}


@many
@given(resizings(), st.data())
def test_resize(case: tuple[Array, dict[str, Any]], data: st.DataObject) -> None:
    x, options = case
    same(kernels.resize(x, **options), tosa.resize(x, **options))
    if options["mode"] == "bilinear" and x.dtype == np.int8:
        after = {
            "multiplier": data.draw(factor(15)),
            "shift": data.draw(st.integers(14, 30)),
            "zp_out": data.draw(zero_point(np.int8)),
            **data.draw(limits(np.int8)),
        }
        same(kernels.resize(x, **options, **after), tosa.resize(x, **options, **after))


@many
@given(st.data(), integer_dtypes, integer_dtypes, st.integers(0, 2), st.floats(1e-4, 0.5))
def test_softmax_chain(data: st.DataObject, dtype: Any, result: Any, axis: int, scale: float) -> None:
    x = data.draw(filled((2, data.draw(sizes), data.draw(st.integers(1, 40))), dtype))
    exponentials = lut.exp_table_int8(scale) if dtype is np.int8 else lut.exp_table_int16(scale)
    options = {
        "axis": axis,
        "multiplier": data.draw(factor(31)),
        "shift": data.draw(st.integers(44, 56)),
        "zp_out": data.draw(zero_point(result)),
        **data.draw(limits(result)),
        "out_dtype": result,
    }
    same(
        softmax(x, exponentials, lut.reciprocal_table(), **options),
        tosa.softmax(x, exponentials, lut.reciprocal_table(), **options),
    )
