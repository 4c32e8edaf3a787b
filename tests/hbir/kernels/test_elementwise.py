"""Elementwise kernels and tables against numpy in int64."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbir import kernels
from hbir.numerics import lut

Array = npt.NDArray[Any]
DTYPES = [np.int8, np.int16, np.int32]


def scaled(x: Array, m: Any, s: Any) -> Array:
    s = np.asarray(s, np.int64)
    return (x * np.asarray(m, np.int64) + (np.int64(1) << (s - 1))) >> s


def numbers(rng: np.random.Generator, dtype: Any, shape: tuple[int, ...]) -> Array:
    """Random integers with many at the ends of the range, in a view that skips every second element of an outer axis."""
    info = np.iinfo(dtype)
    wide = (2 * shape[0], *shape[1:]) if shape else shape
    x = rng.integers(info.min, info.max + 1, wide)
    x = np.where(rng.random(wide) < 0.3, rng.choice([info.min, info.max], wide), x).astype(dtype)
    return x[::2] if shape else x


@st.composite
def pairs(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two shapes that broadcast."""
    sizes = st.lists(st.sampled_from([1, 2, 3, 7, 16, 33, 600]), min_size=1, max_size=4)
    full = draw(sizes.filter(lambda s: np.prod(s) < 40000))
    shapes = [tuple(1 if draw(st.integers(0, 3)) == 0 else size for size in full) for _ in range(2)]
    cut = draw(st.integers(0, len(full) - 1))
    return (shapes[0], shapes[1][cut:]) if draw(st.booleans()) else (shapes[0][cut:], shapes[1])


@settings(max_examples=150, deadline=None)
@given(
    pairs(), st.sampled_from(DTYPES), st.sampled_from(DTYPES), st.integers(0, 2**32), st.sampled_from(["add", "sub"])
)
def test_sums(shapes: Any, a_type: Any, b_type: Any, seed: int, name: str) -> None:
    rng = np.random.default_rng(seed)
    a, b = numbers(rng, a_type, shapes[0]), numbers(rng, b_type, shapes[1])
    got = getattr(kernels, name)(
        a, b, zp_a=3, zp_b=-7, multiplier_a=19661, shift_a=15, multiplier_b=30001, shift_b=16, multiplier_out=20001,
        shift_out=18, zp_out=4, lo=-90, hi=100,
    )  # fmt: skip
    left, right = scaled(a.astype(np.int64) - 3, 19661, 15), scaled(b.astype(np.int64) + 7, 30001, 16)
    total = left + right if name == "add" else left - right
    assert got.dtype == a.dtype
    assert np.array_equal(got, np.clip(scaled(total, 20001, 18) + 4, -90, 100))


@settings(max_examples=100, deadline=None)
@given(pairs(), st.sampled_from(DTYPES[:2]), st.integers(0, 2**32))
def test_products(shapes: Any, dtype: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = numbers(rng, dtype, shapes[0]), numbers(rng, dtype, shapes[1])
    product = a.astype(np.int64) * b.astype(np.int64)
    raw = kernels.mul(a, b)
    assert raw.dtype == np.int32
    assert np.array_equal(raw, product)
    out = np.zeros((2, *product.shape), dtype)[1]
    kernels.mul(a, b, zp_a=1, zp_b=-2, multiplier=2**30 + 1, shift=38, zp_out=1, out=out)
    moved = (a.astype(np.int64) - 1) * (b.astype(np.int64) + 2)
    assert np.array_equal(out, np.clip(scaled(moved, 2**30 + 1, 38) + 1, -128, 127))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from([1, 2, 5, 16, 700]), min_size=1, max_size=3).filter(lambda s: np.prod(s) < 40000),
    st.sampled_from([*DTYPES, np.int64]),
    st.sampled_from(DTYPES), st.booleans(), st.integers(0, 2**32),
)  # fmt: skip
def test_rescale(shape: list[int], dtype: Any, out_type: Any, per_channel: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = numbers(rng, dtype, tuple(shape))
    if dtype == np.int64:
        x = x >> 16  # int48
    m, s = rng.integers(0, 2**15, shape[-1], dtype=np.int32), rng.integers(2, 40, shape[-1]).astype(np.int8)
    if not per_channel:
        m, s = m[:1], s[:1]
    got = kernels.rescale(x, m, s, zp_in=2, zp_out=-1, lo=-128, hi=101, out_dtype=out_type)
    assert np.array_equal(got, np.clip(scaled(x.astype(np.int64) - 2, m, s) - 1, -128, 101))


def test_large_operands_are_shared_between_threads() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(-128, 128, (2, 60, 61, 37)).astype(np.int8)
    channel = rng.integers(-128, 128, (2, 1, 1, 37)).astype(np.int8)
    assert np.array_equal(kernels.mul(x, channel), x.astype(np.int32) * channel)
    view = x.transpose(0, 2, 1, 3)
    assert np.array_equal(kernels.mul(view, channel), view.astype(np.int32) * channel)


@pytest.mark.parametrize("entry", [np.int8, np.int16])
def test_int8_table_is_a_lookup(entry: Any) -> None:
    table = np.arange(256)[::-1].astype(entry)
    x = np.arange(-128, 128).astype(np.int8)
    got = kernels.table_int8(x, table)
    assert got.dtype == entry
    assert np.array_equal(got, table)
    strided = np.repeat(x, 3)[::3].reshape(4, 64)
    assert np.array_equal(kernels.table_int8(strided, table).reshape(-1), table)


def test_int16_table_interpolates_every_input() -> None:
    rng = np.random.default_rng(0)
    table = rng.integers(-32768, 32768, 513).astype(np.int16)
    table[:3] = (-32768, 32767, -32768)
    x = np.arange(-32768, 32768).astype(np.int16)
    entries = table.astype(np.int64)
    expected = [
        (int(entries[(v + 32768) >> 7]) << 7)
        + int(entries[((v + 32768) >> 7) + 1] - entries[(v + 32768) >> 7]) * (v & 127)
        for v in range(-32768, 32768)
    ]
    raw = kernels.table_int16(x, table)
    assert raw.dtype == np.int32
    assert raw.tolist() == expected
    got = kernels.table_int16(x, table, multiplier=16385, shift=21)
    assert np.array_equal(got, np.clip(scaled(np.array(expected), 16385, 21), -32768, 32767))


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=20), st.integers(0, 31), st.booleans())
def test_arithmetic_right_shift(values: list[int], amount: int, rounding: bool) -> None:
    got = kernels.arithmetic_right_shift(np.array(values, np.int32), amount, round=rounding)
    expected = [(v >> amount) + (1 if rounding and amount and (v >> (amount - 1)) & 1 else 0) for v in values]
    assert got.tolist() == expected


@given(st.integers(-(2**31), 2**31 - 1))
def test_clz(value: int) -> None:
    pattern = format(value & 0xFFFFFFFF, "032b")
    assert kernels.clz(np.array([value], np.int32))[0] == len(pattern) - len(pattern.lstrip("0"))


def test_refusals() -> None:
    x = np.zeros((2, 3), np.int8)
    with pytest.raises(ValueError, match="multiplier"):
        kernels.rescale(x, np.zeros(2, np.int32), 4)
    with pytest.raises(ValueError, match="signed integers"):
        kernels.mul(x, x.astype(np.uint8))
    with pytest.raises(ValueError, match="256"):
        kernels.table_int8(x, np.zeros(255, np.int8))
    with pytest.raises(ValueError, match="shape"):
        kernels.rescale(x, 1, 2, out=np.zeros((3, 2), np.int8))


@pytest.mark.parametrize("count", [1, 2, 31, 64])
def test_segmented_table_interpolates_every_input(count: int) -> None:
    rng = np.random.default_rng(count)
    lengths = rng.integers(1, 65535 // count + 1, count - 1)
    starts = np.concatenate([[-32768], -32768 + np.cumsum(lengths)]).astype(np.int16)
    lengths = np.diff(np.append(starts.astype(np.int64), 32768))
    # The finest spacing at which 64 entries reach the next segment.
    spacings = np.array([next(s for s in range(12) if length <= (63 << s) + 1) for length in lengths], np.uint8)
    entries = rng.integers(-32768, 32768, (count, 64)).astype(np.int16)
    x = np.arange(-32768, 32768, dtype=np.int16).reshape(256, 256)
    out = np.zeros((256, 512), np.int16)[:, ::2]
    kernels.bind_table_segmented(x, starts, spacings, entries, out=out)()
    assert np.array_equal(out, lut.SegmentedTable(starts, spacings, entries).evaluate(x))


def test_a_segmented_table_of_another_form_is_refused() -> None:
    x, starts = np.zeros(4, np.int16), np.zeros(2, np.int16)
    spacings, entries = np.zeros(2, np.int8), np.zeros((2, 64), np.int16)
    wrong = (
        (x.astype(np.int8), starts, spacings, entries), (x, starts.astype(np.int32), spacings, entries),
        (x, starts, spacings[:1], entries), (x, starts, spacings, entries[:, :63]), (x, starts[:0], spacings[:0], entries[:0]),
    )  # fmt: skip
    for operands in wrong:
        with pytest.raises(ValueError, match="segmented table"):
            kernels.bind_table_segmented(*operands, out=x)
