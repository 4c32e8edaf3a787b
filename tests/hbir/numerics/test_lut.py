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


@pytest.mark.parametrize(
    ("name", "s_x", "s_y", "interpolated", "segmented"),
    [
        ("sigmoid", 8 / 32768, 1 / 32767, 1, 1),
        ("tanh", 4 / 32768, 1 / 32767, 2, 1),
        ("gelu", 8 / 32768, 8 / 32767, 1, 1),
        ("reciprocal", 8 / 32768, 8 / 32767, 65535, 1),
        ("rsqrt", 8 / 32768, 8 / 32767, 6000, 1),
        ("log", 8 / 32768, 3 / 32767, 700, 1),
        ("sin", 7 / 32768, 1 / 32767, 4, 1),
        ("identity", 1 / 32768, 1 / 32768, 0, 1),
    ],
)
def test_worst_errors_stay_as_small_as_measured(
    name: str, s_x: float, s_y: float, interpolated: int, segmented: int
) -> None:
    ideal = ideal_int16(name, Quantization(s_x), Quantization(s_y))
    first, second = int16_interpolated_table(name, s_x, 0, s_y, 0), int16_segmented_table(name, s_x, 0, s_y, 0)
    assert worst_error(first, ideal) <= interpolated
    assert worst_error(second, ideal) <= segmented
    best, error = best_int16_table(name, s_x, 0, s_y, 0)
    assert error == min(worst_error(first, ideal), worst_error(second, ideal)) == worst_error(best, ideal)
    assert isinstance(best, InterpolatedTable if worst_error(first, ideal) == error else SegmentedTable)


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


def test_entries_become_finer_when_the_output_range_is_small() -> None:
    """sin(x) / 50 uses 650 of the 32,767 output steps; the entries use all 16 bits and the rescale brings them back."""
    small = compose(FUNCTIONS["sin"], FUNCTIONS["affine"].bind(0.02, 0.0))
    table = int16_interpolated_table(small, 7 / 32768, 0, 1 / 32767, 0)
    assert int(np.abs(table.entries.astype(np.int32)).max()) > 30000 or table.multiplier == 1 << 30
    assert worst_error(table, ideal_int16(small, Quantization(7 / 32768), Quantization(1 / 32767))) <= 1


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
