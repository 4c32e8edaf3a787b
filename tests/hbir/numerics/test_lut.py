"""Tables against mpmath (a second implementation of every function) and against their own definitions."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbir.errors import IrError
from hbir.numerics.functions import table_context
from hbir.numerics.lut import (
    FUNCTIONS,
    Function,
    InterpolatedTable,
    Quantization,
    SegmentedTable,
    _entry_scale,  # pyright: ignore[reportPrivateUsage]
    best_int16_table,
    compose,
    exp_table_int8,
    exp_table_int16,
    function_named,
    ideal_int16,
    int8_table,
    int16_interpolated_table,
    int16_segmented_table,
    product,
    reciprocal_table,
    rsqrt_table,
    total,
    worst_error,
)

ALL_INT16 = np.arange(-32768, 32768)


def _clip(x: Any, low: Any, high: Any) -> Any:
    return min(max(x, low), high)


def _judge_pow(x: Any, exponent: Any) -> Any:
    if x == 0:
        return mpmath.mpf(0) if exponent > 0 else mpmath.inf if exponent < 0 else mpmath.mpf(1)
    return mpmath.mpf(0) if x < 0 and exponent != int(exponent) else x**exponent


def _sign(x: Any) -> Any:
    return mpmath.sign(x)


def _nint(x: Any) -> Any:
    """Nearest integer, half to even."""
    return mpmath.nint(x)


JUDGES: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "affine": lambda x, scale, offset: scale * x + offset,
    "ceil": mpmath.ceil,
    "clip": _clip,
    "cos": mpmath.cos,
    "elu": lambda x, alpha: x if x > 0 else alpha * mpmath.expm1(x),
    "erf": mpmath.erf,
    "exp": mpmath.exp,
    "floor": mpmath.floor,
    "gelu": lambda x: x * mpmath.ncdf(x),
    "gelu_tanh": lambda x: x / 2 * (1 + mpmath.tanh(mpmath.sqrt(2 / mpmath.pi) * (x + mpmath.mpf("0.044715") * x**3))),
    "hardsigmoid": lambda x, alpha, beta: _clip(alpha * x + beta, mpmath.mpf(0), mpmath.mpf(1)),
    "hardswish": lambda x: x * _clip(x + 3, mpmath.mpf(0), mpmath.mpf(6)) / 6,
    "identity": lambda x: x,
    "leaky_relu": lambda x, alpha: x if x > 0 else alpha * x,
    "log": lambda x: mpmath.log(x) if x > 0 else -mpmath.inf,
    "mish": lambda x: x * mpmath.tanh(mpmath.log1p(mpmath.exp(x))),
    "neg": lambda x: -x,
    "pow": _judge_pow,
    "reciprocal": lambda x: 1 / x if x else mpmath.inf,
    "relu": lambda x: max(x, mpmath.mpf(0)),
    "round": _nint,
    "rsqrt": lambda x: 1 / mpmath.sqrt(x) if x > 0 else mpmath.inf,
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "sign": _sign,
    "silu": lambda x: x / (1 + mpmath.exp(-x)),
    "sin": mpmath.sin,
    "softplus": lambda x: mpmath.log1p(mpmath.exp(x)),
    "softsign": lambda x: x / (1 + abs(x)),
    "sqrt": lambda x: mpmath.sqrt(x) if x > 0 else mpmath.mpf(0),
    "square": lambda x: x * x,
    "swish": lambda x, beta: x / (1 + mpmath.exp(-beta * x)),
    "tanh": mpmath.tanh,
}
PARAMETERS: dict[str, list[tuple[float, ...]]] = {
    "affine": [(1.0, 0.0), (-0.3, 1.7)],
    "clip": [(-math.inf, math.inf), (0.0, 6.0)],
    "elu": [(1.0,), (0.37,)],
    "hardsigmoid": [(0.2, 0.5), (float(np.float32(1 / 6)), 0.5)],
    "leaky_relu": [(0.01,), (0.2,)],
    "pow": [(2.0,), (3.0,), (-1.0,), (0.5,), (1.7,), (0.0,)],
    "swish": [(1.0,), (1.702,)],
}
CASES = [(name, values) for name in sorted(FUNCTIONS) for values in PARAMETERS.get(name, [()])]


def judged(
    judge: Callable[[Any], Any], inputs: range, s_x: float, zp_x: int, s_y: float, zp_y: int, bits: int
) -> list[int]:
    """clamp(rint(f(s_x (x - zp_x)) / s_y) + zp_y) with mpmath at 120 digits, which leaves products of scales exact."""
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    results: list[int] = []
    with mpmath.workdps(120):
        for x in inputs:
            quotient = judge(mpmath.mpf(float(np.float32(s_x))) * (x - zp_x)) / mpmath.mpf(float(np.float32(s_y)))
            nearest = int(_nint(_clip(quotient, mpmath.mpf(low - zp_y), mpmath.mpf(high - zp_y)))) + zp_y
            results.append(nearest)
    return results


@pytest.mark.parametrize(("name", "values"), CASES)
@pytest.mark.parametrize(
    ("s_x", "zp_x", "s_y", "zp_y"),
    [
        (0.0625, 0, 0.0078125, 0),
        (0.0473, 7, 0.0061, -100),
        (0.11, -128, 0.25, -128),
        (1e-3, 0, 1e-3, 0),
        (2.5, 3, 0.5, 0),
    ],
)
def test_int8_table_is_the_correctly_rounded_function(
    name: str, values: tuple[float, ...], s_x: float, zp_x: int, s_y: float, zp_y: int
) -> None:
    bound = [mpmath.mpf(value) for value in values]
    expected = judged(lambda x: JUDGES[name](x, *bound), range(-128, 128), s_x, zp_x, s_y, zp_y, 8)
    table = int8_table(name, s_x, zp_x, s_y, zp_y, values)
    assert table.dtype == np.int8
    assert table.tolist() == expected


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(CASES),
    st.floats(2**-12, 8, width=32),
    st.floats(2**-12, 8, width=32),
    st.integers(-128, 127),
    st.integers(-128, 127),
    st.sampled_from([8, 16]),
)
def test_int8_table_at_random_scales(
    case: tuple[str, tuple[float, ...]], s_x: float, s_y: float, zp_x: int, zp_y: int, bits: int
) -> None:
    name, values = case
    bound = [mpmath.mpf(value) for value in values]
    expected = judged(lambda x: JUDGES[name](x, *bound), range(-128, 128, 5), s_x, zp_x, s_y, zp_y, bits)
    assert int8_table(name, s_x, zp_x, s_y, zp_y, values, out_bits=bits)[::5].tolist() == expected


def test_ties_round_half_to_even_even_when_the_scales_have_a_hundred_digits() -> None:
    expected = [round(i / 2) for i in range(-128, 128)]
    for s_x in (0.5, 0.1, 3e-30, 7e30):
        s_x = float(np.float32(s_x))
        assert int8_table("identity", s_x, 0, 2 * s_x, 0).tolist() == expected


def test_the_largest_error_of_the_exact_rules_is_below_ten_to_minus_40() -> None:
    points = [
        Decimal(repr(x)) for x in (-30.5, -9.75, -3.0, -1.25, -1e-3, -1e-12, 1e-12, 0.3, 1.0, 2.75, 6.5, 11.5, 40.25)
    ]
    for name, values in CASES:
        f = FUNCTIONS[name].bind(*values)
        for x in points:
            with localcontext(table_context()):
                value = f.exact(x)
            if not value.is_finite():
                continue
            with mpmath.workdps(80):
                bound = [mpmath.mpf(each) for each in f.parameters.values()]
                truth = JUDGES[name](mpmath.mpf(str(x)), *bound)
                assert abs(mpmath.mpf(str(value)) - truth) <= mpmath.mpf("1e-40") * max(1, abs(truth)), (name, x)


@pytest.mark.parametrize(("name", "values"), CASES)
def test_float_evaluation_agrees_with_the_exact_one(name: str, values: tuple[float, ...]) -> None:
    f = FUNCTIONS[name].bind(*values)
    x = np.linspace(-6.0, 6.0, 101)
    got = FUNCTIONS[name].evaluate(x, *values)
    with localcontext(table_context()):
        exact = np.array([float(f.exact(Decimal(each))) for each in x.tolist()])
    defined = np.isfinite(got) & np.isfinite(exact)
    # a few float64 roundings of intermediates up to 6^4, none amplified by more than the result's own size
    np.testing.assert_allclose(got[defined], exact[defined], rtol=1e-12, atol=1e-13)
    assert defined.sum() >= 49
    single = FUNCTIONS[name].evaluate(x.astype(np.float32), *values)
    assert single.dtype == np.float32
    np.testing.assert_array_equal(
        single, FUNCTIONS[name].evaluate(x.astype(np.float32).astype(np.float64), *values).astype(np.float32)
    )


def test_domain_problems_saturate() -> None:
    assert int8_table("log", 0.1, 0, 0.05, 0)[:129].tolist() == [-128] * 129
    assert int8_table("reciprocal", 0.1, 0, 0.05, 0)[128] == 127
    assert int8_table("rsqrt", 0.1, 0, 0.05, 0)[:129].tolist() == [127] * 129
    assert int8_table("sqrt", 0.1, 0, 0.05, 3)[:128].tolist() == [3] * 128
    assert int8_table(compose(FUNCTIONS["log"], FUNCTIONS["exp"]), 0.1, 0, 0.1, 0)[128] == 0
    with pytest.raises(IrError, match="HB0271"):
        int8_table(compose(FUNCTIONS["reciprocal"], FUNCTIONS["sin"]), 0.1, 0, 0.1, 0)


def test_float_evaluation_keeps_ieee_at_the_poles() -> None:
    x = np.array([-1.0, 0.0], np.float32)
    assert np.isnan(FUNCTIONS["log"].evaluate(x)[0]) and FUNCTIONS["log"].evaluate(x)[1] == -np.inf
    assert FUNCTIONS["reciprocal"].evaluate(x)[1] == np.inf


def test_composition_in_one_table() -> None:
    silu = product(FUNCTIONS["identity"], FUNCTIONS["sigmoid"])
    assert np.array_equal(int8_table(silu, 0.05, 0, 0.03, 0), int8_table("silu", 0.05, 0, 0.03, 0))
    clipped = compose(FUNCTIONS["hardswish"], FUNCTIONS["clip"].bind(low=0.0, high=1.0))
    expected = judged(
        lambda x: _clip(JUDGES["hardswish"](x), mpmath.mpf(0), mpmath.mpf(1)), range(-128, 128), 0.05, 0, 0.01, 0, 8
    )
    assert int8_table(clipped, 0.05, 0, 0.01, 0).tolist() == expected
    added = total(FUNCTIONS["tanh"], FUNCTIONS["affine"].bind(0.5, 1.0))
    expected = judged(lambda x: mpmath.tanh(x) + x / 2 + 1, range(-128, 128), 0.05, 0, 0.03, 0, 8)
    assert int8_table(added, 0.05, 0, 0.03, 0).tolist() == expected
    x = np.linspace(-2, 2, 9)
    np.testing.assert_allclose(added.evaluate(x), np.tanh(x) + 0.5 * x + 1, rtol=1e-14)
    np.testing.assert_allclose(silu.evaluate(x), x / (1 + np.exp(-x)), rtol=1e-14)


def test_errors_name_the_parameter_and_the_function() -> None:
    with pytest.raises(IrError, match=r"HB0272.*nonsense"):
        function_named("nonsense")
    with pytest.raises(IrError, match=r"HB0270.*alpha"):
        function_named("elu", {"beta": 1.0})
    with pytest.raises(IrError, match="HB0270"):
        function_named("sigmoid", [1.0])
    with pytest.raises(IrError, match=r"HB0270.*finite"):
        function_named("elu", [math.nan])
    for scale in (0.0, -1.0, math.inf, math.nan, 1e-60):
        with pytest.raises(IrError, match="HB0273"):
            int8_table("exp", scale, 0, 1.0, 0)
    with pytest.raises(IrError, match="HB0274"):
        Quantization(1.0, 0, 12)


@pytest.mark.parametrize(
    ("name", "s_x", "zp_x", "s_y", "zp_y"),
    [
        ("sigmoid", 8 / 32768, 0, 1 / 32767, 0),
        ("log", 8 / 32768, 0, 3 / 32767, 0),
        ("reciprocal", 1 / 4096, 100, 1 / 4096, -300),
        ("identity", 1 / 32768, 0, 2 / 32768, 0),
        ("gelu", 1e-3, 0, 1e-4, 0),
    ],
)
def test_ideal_of_all_int16_inputs(name: str, s_x: float, zp_x: int, s_y: float, zp_y: int) -> None:
    ideal = ideal_int16(name, Quantization(s_x, zp_x), Quantization(s_y, zp_y))
    assert ideal.shape == (65536,)
    inputs = range(-32768, 32768, 97)
    assert ideal[::97].tolist() == judged(JUDGES[name], inputs, s_x, zp_x, s_y, zp_y, 16)


def test_ideal_does_not_trust_float64_near_a_threshold() -> None:
    class Wrong(Function):
        """A float rule with an error of 1e-9: still the same ideal, because the doubtful points are decided exactly."""

        def evaluate(self, x: Any, *values: float) -> Any:
            return super().evaluate(x) * (1 + 1e-9)

    sigmoid = FUNCTIONS["sigmoid"]
    wrong = Wrong("sigmoid", sigmoid.exact_rule, sigmoid.float_rule)
    source, target = Quantization(8 / 32768), Quantization(1 / 32767)
    assert np.array_equal(ideal_int16(wrong, source, target), ideal_int16(sigmoid, source, target))


def test_interpolated_table_is_tosa_table_arithmetic() -> None:
    entries = np.random.default_rng(1).integers(-32768, 32768, 513).astype(np.int16)
    table = InterpolatedTable(entries, 1 << 30, 37)
    for x in (-32768, -32767, -1, 0, 1, 127, 128, 32767):
        i, r = (x >> 7) + 256, x & 127
        expected = int(entries[i]) * 128 + (int(entries[i + 1]) - int(entries[i])) * r
        assert table.interpolate(np.array([x], np.int16))[0] == expected
        assert table.evaluate(np.array([x], np.int16))[0] == (expected + 64) >> 7
    assert table.evaluate(np.zeros(1, np.int16)).dtype == np.int16


def digest_of(*tables: InterpolatedTable | SegmentedTable) -> str:
    """First digits of the sha256 of everything a table holds."""
    digest = hashlib.sha256()
    for table in tables:
        if isinstance(table, InterpolatedTable):
            digest.update(f"{table.multiplier} {table.shift} {table.zero_point} {table.bits}".encode())
        else:
            digest.update(table.starts.tobytes() + table.shifts.tobytes())
        digest.update(table.entries.tobytes())
    return digest.hexdigest()[:12]


@pytest.mark.parametrize(
    ("name", "s_x", "s_y", "interpolated", "segmented", "digest"),
    [
        ("sigmoid", 8 / 32768, 1 / 32767, 1, 1, "c43368f619c5"),
        ("tanh", 4 / 32768, 1 / 32767, 2, 1, "7a360ff78084"),
        ("gelu", 8 / 32768, 8 / 32767, 1, 1, "4c388c1d4f26"),
        ("reciprocal", 8 / 32768, 8 / 32767, 65535, 1, "bd71bf945a63"),
        ("rsqrt", 8 / 32768, 8 / 32767, 6000, 1, "159588d260ee"),
        ("log", 8 / 32768, 3 / 32767, 700, 1, "e68f785e5408"),
        ("sin", 7 / 32768, 1 / 32767, 4, 1, "72bc8c62912c"),
        ("identity", 1 / 32768, 1 / 32768, 0, 1, "74c1efe5d68c"),
    ],
)
def test_worst_errors_stay_as_small_as_measured(
    name: str, s_x: float, s_y: float, interpolated: int, segmented: int, digest: str
) -> None:
    ideal = ideal_int16(name, Quantization(s_x), Quantization(s_y))
    first, second = int16_interpolated_table(name, s_x, 0, s_y, 0), int16_segmented_table(name, s_x, 0, s_y, 0)
    assert worst_error(first, ideal) <= interpolated
    assert worst_error(second, ideal) <= segmented
    # The same bytes on every machine and in every version; a change here changes every compiled model.
    assert digest_of(first, second) == digest
    best, error = best_int16_table(name, s_x, 0, s_y, 0)
    assert error == min(worst_error(first, ideal), worst_error(second, ideal)) == worst_error(best, ideal)
    assert isinstance(best, InterpolatedTable if worst_error(first, ideal) == error else SegmentedTable)


def test_tables_with_zero_points_parameters_and_either_width() -> None:
    for bits, zp_y, s_y, digest in ((8, -100, 0.02, "31c6ccca253c"), (16, 1234, 1e-4, "837da207e349")):
        table = int16_interpolated_table("swish", 1e-4, -500, s_y, zp_y, [1.5], out_bits=bits)
        same = int16_interpolated_table(FUNCTIONS["swish"], 1e-4, -500, s_y, zp_y, {"beta": 1.5}, out_bits=bits)
        assert (table.zero_point, table.bits) == (zp_y, bits)
        assert digest_of(table) == digest_of(same) == digest
        ideal = ideal_int16("swish", Quantization(1e-4, -500), Quantization(s_y, zp_y, bits), [1.5])
        assert worst_error(table, ideal) <= 1
        assert table.evaluate(ALL_INT16).dtype == (np.int8 if bits == 8 else np.int16)
    curve = ("swish", 1e-4, -500, 1e-4, 1234, {"beta": 1.5})
    segments, (best, error) = int16_segmented_table(*curve), best_int16_table(*curve)
    assert digest_of(segments, best) == "7d72f3484301"
    assert error == worst_error(best, ideal) <= worst_error(segments, ideal) <= 1


@pytest.mark.parametrize(
    ("gain", "bound", "digest"),
    [(3.9, 3, "bc3edeb54d21"), (4.4, 4, "bcff88b4bf3a"), (5.8, 7, "1dcd4bf6c651"), (200.0, 7956, "4599e2d4cf58")],
)
def test_segments_of_curves_that_need_more_get_the_smallest_bound(gain: float, bound: int, digest: str) -> None:
    """Periods of sin(gain * x) over [-8, 8]. The bounds were found by trying one after the other."""
    curve = compose(FUNCTIONS["affine"].bind(gain, 0.0), FUNCTIONS["sin"])
    table = int16_segmented_table(curve, 8 / 32768, 0, 1 / 32767, 0)
    assert worst_error(table, ideal_int16(curve, Quantization(8 / 32768), Quantization(1 / 32767))) == bound
    assert digest_of(table) == digest


def test_ranges_of_tables() -> None:
    wide, narrow = Quantization(0.1), Quantization(0.1, 3, 8)
    assert (wide.zero_point, wide.bits, wide.low, wide.high, wide.dtype) == (0, 16, -32768, 32767, np.int16)
    assert (narrow.zero_point, narrow.bits, narrow.low, narrow.high, narrow.dtype) == (3, 8, -128, 127, np.int8)
    assert wide.scale == float(np.float32(0.1))
    assert Quantization(2.0**-149).scale > 0
    for scale in (0.0, -1.0, math.inf, math.nan, 1e39):
        with pytest.raises(IrError) as caught:
            Quantization(scale)
        assert caught.value.code == "HB0273"
    for bits in (7, 9, 15, 17):
        with pytest.raises(IrError) as caught:
            Quantization(1.0, 0, bits)
        assert caught.value.code == "HB0274"


@pytest.mark.parametrize(("s_x", "s_y"), [(1 / 1024, 2 / 1024), (3.0, 6.0), (1 / 1024, 64.0)])
def test_errors_of_float64_up_to_the_doubt_change_nothing(s_x: float, s_y: float) -> None:
    class Wrong(Function):
        """Off by almost the error that is allowed for, up and down in turn."""

        def evaluate(self, x: Any, *values: float) -> Any:
            value = super().evaluate(x)
            off = 0.99e-8 * (s_y + np.abs(x) + np.abs(value))
            return value + np.where(np.arange(x.size) // 2 % 2, off, -off)

    identity = FUNCTIONS["identity"]
    wrong = Wrong("identity", identity.exact_rule, identity.float_rule)
    expected = judged(JUDGES["identity"], range(-32768, 32768, 61), s_x, 0, s_y, 0, 16)
    assert ideal_int16(wrong, Quantization(s_x), Quantization(s_y))[::61].tolist() == expected


@pytest.mark.parametrize(("zp_y", "bits"), [(0, 16), (-32768, 16), (32767, 16), (-128, 8), (127, 8)])
def test_ideal_at_the_ends_of_the_output(zp_y: int, bits: int) -> None:
    """A slope of 4: three quarters of the inputs saturate, and ties lie beside the ends."""
    source, target = Quantization(4 / 1024), Quantization(1 / 1024 if bits == 16 else 1.0, zp_y, bits)
    inputs = range(-32768, 32768, 31)
    for name in ("identity", "exp", "log"):
        expected = judged(JUDGES[name], inputs, source.scale, 0, target.scale, zp_y, bits)
        assert ideal_int16(name, source, target)[::31].tolist() == expected


def test_fits_tosa_is_about_steps_between_neighbours() -> None:
    for step, fits in ((32767, True), (32768, False), (-32768, True), (-32769, False)):
        entries = np.zeros(513, np.int16)
        begin = -16384 if step > 0 else 16384
        entries[200:300], entries[300:400] = begin, begin + step
        assert InterpolatedTable(entries, 1, 2).fits_tosa is fits


def test_segments_take_any_shape_and_their_own_inputs() -> None:
    rng = np.random.default_rng(3)
    starts = np.array([-32768, -32000, -100, 5, 4037], np.int16)
    table = SegmentedTable(
        starts, np.array([5, 11, 1, 6, 9], np.uint8), rng.integers(-32768, 32768, (5, 64)).astype(np.int16)
    )
    x = np.concatenate([starts + d for d in (0, 1, 2, 33, 63, 64)] + [starts[1:] - 1, [32767]]).astype(np.int16)
    for value, got in zip(x.tolist(), table.evaluate(x.reshape(1, -1))[0].tolist(), strict=True):
        n = max(i for i, start in enumerate(starts.tolist()) if start <= value)
        shift, e = int(table.shifts[n]), table.entries[n].tolist()
        d = value - int(starts[n])
        k, r = min(d >> shift, 63), d & ((1 << shift) - 1)
        if d >> shift > 63:
            continue  # beyond its 64th entry: no table has such an input
        following = e[min(k + 1, 63)]
        assert got == (((e[k] << shift) + (following - e[k]) * r + ((1 << shift) >> 1)) >> shift), (value, n)


def test_worst_error_is_the_maximum_over_all_inputs() -> None:
    s = 8 / 32768
    ideal = ideal_int16("tanh", Quantization(s), Quantization(1 / 32767))
    table = int16_interpolated_table("tanh", s, 0, 1 / 32767, 0)
    by_hand = max(abs(int(table.evaluate(np.array(x))) - int(ideal[x + 32768])) for x in range(-32768, 32768, 7))
    assert by_hand <= worst_error(table, ideal)
    broken = InterpolatedTable(
        np.where(np.arange(513) == 300, 0, table.entries).astype(np.int16), table.multiplier, table.shift
    )
    assert worst_error(broken, ideal) > 1000


@pytest.mark.parametrize(
    ("name", "gain", "zp_y", "bits", "digest"),
    [
        ("sin", 0.02, 0, 16, "d741a9db6e86"),
        ("tanh", 0.1, -700, 16, "a323d01c2e1f"),
        ("sigmoid", 100.0, 3, 8, "3c17bfa2f745"),
        ("reciprocal", 0.001, 0, 16, "9859607097aa"),
    ],
)
def test_entries_are_finer_where_that_is_better(name: str, gain: float, zp_y: int, bits: int, digest: str) -> None:
    """Entries in output steps are good enough for most; a curve that is steep in a small range gets finer ones."""
    small = compose(FUNCTIONS[name], FUNCTIONS["affine"].bind(gain, 0.0))
    s_y = 1 / 32767 if bits == 16 else 1.0
    table = int16_interpolated_table(small, 7 / 32768, 0, s_y, zp_y, out_bits=bits)
    assert (table.multiplier != 1 << 30) == (name == "reciprocal")
    assert (int(np.abs(table.entries.astype(np.int32)).max()) > 32700) == (name == "reciprocal")
    ideal = ideal_int16(small, Quantization(7 / 32768), Quantization(s_y, zp_y, bits))
    assert worst_error(table, ideal) <= (1 if name != "reciprocal" else 65535)
    assert digest_of(table) == digest


@settings(max_examples=100)
@given(
    st.lists(
        st.sampled_from([-math.inf, -9e4, -4e4, -33000.0, -50.0, 0.0, 1.5, 32767.0, 32768.0, 7e4, 2e5, math.inf]),
        min_size=5,
        max_size=5,
    ),
    st.sampled_from([(0, 1.0), (-32768, 1.0), (100, 2.0**-10), (32767, 4.0)]),
)
def test_the_scale_of_entries_is_the_finest_that_holds_what_the_output_sees(
    values: list[float], output: tuple[int, float]
) -> None:
    zero, step = output
    f = Function("steps", lambda x: Decimal(values[int(x) + 2]) * Decimal(step), lambda x: x)
    got = _entry_scale(f, Quantization(0.5, 3), Quantization(step, zero), range(-1, 8, 2))
    low, high = (-32768 - zero) * step, (32767 - zero) * step
    reach = [value * step for value in values]
    seen = [
        abs(value)
        for i, value in enumerate(reach)
        if math.isfinite(value) and any(low <= near <= high for near in reach[max(i - 1, 0) : i + 2])
    ]
    largest = min(max(seen, default=high), 4 * max(-low, high))
    finest = np.nextafter(np.float32(largest / 32767), np.float32(np.inf))
    assert got == max(float(finest), step * 2.0**-20)
    assert all(value / got <= 32767 for value in seen if value <= largest)


def test_tosa_leaves_a_table_with_a_pole_open() -> None:
    assert int16_interpolated_table("sigmoid", 8 / 32768, 0, 1 / 32767, 0).fits_tosa
    assert not int16_interpolated_table("reciprocal", 8 / 32768, 0, 8 / 32767, 0).fits_tosa


def test_int16_to_int8_table() -> None:
    source, target = Quantization(8 / 32768), Quantization(1 / 255, -128, 8)
    table = int16_interpolated_table("sigmoid", 8 / 32768, 0, 1 / 255, -128, out_bits=8)
    assert table.evaluate(ALL_INT16).dtype == np.int8
    assert worst_error(table, ideal_int16("sigmoid", source, target)) <= 1


def test_segmented_table_follows_its_definition_and_its_invariants() -> None:
    table = int16_segmented_table("reciprocal", 8 / 32768, 0, 8 / 32767, 0)
    starts, shifts = table.starts.astype(int).tolist(), table.shifts.astype(int).tolist()
    assert starts[0] == -32768 and starts == sorted(starts) and 1 <= len(starts) <= 64
    assert table.entries.shape == (len(starts), 64) and max(shifts) <= 11
    ends = [*starts[1:], 32768]
    assert all(end <= start + (63 << shift) + 1 for start, end, shift in zip(starts, ends, shifts, strict=True))
    for x in [*range(-32768, 32768, 311), *starts, 32767]:
        n = max(i for i, start in enumerate(starts) if start <= x)
        d, shift, e = x - starts[n], shifts[n], table.entries[n].astype(int).tolist()
        k, r = d >> shift, d & ((1 << shift) - 1)
        expected = ((e[k] << shift) + (e[min(k + 1, 63)] - e[k]) * r + ((1 << shift) >> 1)) >> shift
        assert int(table.evaluate(np.array(x, np.int16))) == expected


def test_softmax_and_norm_tables() -> None:
    scale = float(np.float32(0.05))
    with mpmath.workdps(60):
        expected = [int(_nint(mpmath.exp(mpmath.mpf(scale) * d) * 32767)) for d in range(-255, 1)]
        assert exp_table_int8(scale).tolist() == expected
        step = mpmath.mpf(float(np.float32(8 / 32768)))
        wide = [int(_nint(mpmath.exp(2 * step * min(128 * i - 32768, 0)) * 32767)) for i in range(513)]
        assert exp_table_int16(8 / 32768).tolist() == wide
    assert reciprocal_table().tolist() == [round(32767 * 512 / (512 + i)) for i in range(513)]
    assert rsqrt_table().shape == (513,)
    for i, entry in enumerate(rsqrt_table().tolist()):
        # entry = rint(a) with a^2 = 32767^2 * 128 / i, decided without a square root
        assert (
            entry == 32767 if i <= 128 else (2 * entry - 1) ** 2 * i <= 4 * 128 * 32767**2 <= (2 * entry + 1) ** 2 * i
        )


def test_normalised_reciprocal_and_rsqrt_follow_their_docstrings() -> None:
    reciprocal = InterpolatedTable(reciprocal_table(), 1 << 30, 37)
    rsqrt = InterpolatedTable(rsqrt_table(), 1 << 30, 37)
    for s in (1, 2, 3, 1000, 65535, 65536, 123456789, 2**31 - 1):
        n = 32 - s.bit_length()
        m = s << (n - 1)
        got = int(reciprocal.interpolate(np.array((m >> 14) - 98304)))
        # 1e-4: the table's step, 2^-16 of v for the dropped bits, half an entry of 16384 for its rounding
        assert got / 128 / 32767 == pytest.approx(2.0 ** (31 - n) / 2 / (s / 2), rel=1e-4)
        k = (n - 1) & ~1
        got = int(rsqrt.interpolate(np.array(((s << k) >> 15) - 32768)))
        assert got / 128 / 32767 == pytest.approx((s / 2.0 ** (29 - k)) ** -0.5, rel=1e-4)


def test_table_bytes_never_change() -> None:
    """The same bytes on every machine and in every version; a change here changes every compiled model."""
    digest = hashlib.sha256()
    for name, values in CASES:
        digest.update(int8_table(name, 0.047, 5, 0.011, -7, values).tobytes())
    for name in ("sigmoid", "log", "gelu"):
        table, _ = best_int16_table(name, 8 / 32768, 0, 4 / 32768, 0)
        digest.update(table.entries.tobytes())
    assert digest.hexdigest() == "2a874beb0599687da359e6e9c5ac645e509b1628ed4a7230cc04c7319b1d6992"
