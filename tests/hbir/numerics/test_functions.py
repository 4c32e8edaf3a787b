"""The functions themselves: parameters, limits, and every exact rule to the error that its docstring promises."""

from __future__ import annotations

import math
from decimal import ROUND_HALF_EVEN, Decimal, localcontext

import mpmath
import numpy as np
import pytest

from hbir.errors import IrError
from hbir.numerics.functions import FUNCTIONS, Function, compose, function_named, product, table_context, total
from tests.hbir.numerics.test_lut import CASES, JUDGES

INFINITY = math.inf


def exact(f: Function, x: float | str) -> Decimal:
    with localcontext(table_context()):
        return f.exact(Decimal(x))


def test_exact_evaluation_has_fifty_digits_and_no_traps() -> None:
    context = table_context()
    assert (context.prec, context.rounding) == (50, ROUND_HALF_EVEN)
    assert not any(context.traps.values())
    assert context.divide(Decimal(1), Decimal(0)) == Decimal("Infinity")
    assert context.exp(Decimal(-(10**12))) > 0


def test_names_are_sorted_and_parameters_have_their_defaults() -> None:
    assert list(FUNCTIONS) == sorted(FUNCTIONS)
    assert all(function.name == name for name, function in FUNCTIONS.items())
    assert {name: dict(f.parameters) for name, f in FUNCTIONS.items() if f.parameters} == {
        "affine": {"scale": 1.0, "offset": 0.0},
        "clip": {"low": -INFINITY, "high": INFINITY},
        "elu": {"alpha": 1.0},
        "hardsigmoid": {"alpha": 0.2, "beta": 0.5},
        "leaky_relu": {"alpha": 0.01},
        "pow": {"exponent": 2.0},
        "swish": {"beta": 1.0},
    }


def test_parameters_are_bound_by_position_and_by_name() -> None:
    affine = FUNCTIONS["affine"]
    assert dict(affine.bind(2.0).parameters) == {"scale": 2.0, "offset": 0.0}
    assert dict(affine.bind(2.0, offset=3.0).parameters) == {"scale": 2.0, "offset": 3.0}
    assert dict(affine.bind(offset=3.0, scale=4.0).parameters) == {"scale": 4.0, "offset": 3.0}
    assert function_named("affine") is affine
    assert dict(function_named("affine", {"offset": 1.0}).parameters) == {"scale": 1.0, "offset": 1.0}
    assert dict(function_named("affine", [5.0, 6.0]).parameters) == {"scale": 5.0, "offset": 6.0}
    assert affine.evaluate(np.array([1.0, 2.0]), 2.0, 1.0).tolist() == [3.0, 5.0]
    assert affine.bind(3.0).evaluate(np.array([1.0, 2.0])).tolist() == [3.0, 6.0]
    assert FUNCTIONS["clip"].bind(-1.0).evaluate(np.array([-2.0, 9.0])).tolist() == [-1.0, 9.0]


@pytest.mark.parametrize(
    ("name", "values", "named"),
    [
        ("affine", (1.0, 2.0, 3.0), {}),
        ("affine", (1.0,), {"slope": 2.0}),
        ("abs", (1.0,), {}),
        ("elu", (INFINITY,), {}),
        ("elu", (-INFINITY,), {}),
        ("affine", (1.0, math.nan), {}),
        ("clip", (math.nan,), {}),
        ("clip", (0.0, math.nan), {}),
    ],
)
def test_other_parameters_are_refused(name: str, values: tuple[float, ...], named: dict[str, float]) -> None:
    with pytest.raises(IrError) as caught:
        FUNCTIONS[name].bind(*values, **named)
    assert caught.value.code == "HB0270"
    if values:
        with pytest.raises(IrError, match="HB0270"):
            FUNCTIONS[name].evaluate(np.zeros(1), *values, *named.values(), *values, *values)


@pytest.mark.parametrize(
    ("name", "below", "above"),
    [
        ("abs", INFINITY, INFINITY),
        ("elu", -1, INFINITY),
        ("erf", -1, 1),
        ("exp", 0, INFINITY),
        ("hardsigmoid", 0, 1),
        ("identity", -INFINITY, INFINITY),
        ("log", -INFINITY, INFINITY),
        ("mish", 0, INFINITY),
        ("neg", INFINITY, -INFINITY),
        ("pow", INFINITY, INFINITY),
        ("reciprocal", 0, 0),
        ("relu", 0, INFINITY),
        ("rsqrt", INFINITY, 0),
        ("sigmoid", 0, 1),
        ("sign", -1, 1),
        ("softplus", 0, INFINITY),
        ("sqrt", 0, INFINITY),
        ("square", INFINITY, INFINITY),
        ("tanh", -1, 1),
    ],
)
def test_limits_at_infinity(name: str, below: float, above: float) -> None:
    assert exact(FUNCTIONS[name], "-Infinity") == Decimal(below)
    assert exact(FUNCTIONS[name], "Infinity") == Decimal(above)


def test_values_at_zero() -> None:
    for zero in ("0", "-0"):
        assert exact(FUNCTIONS["log"], zero) == Decimal("-Infinity")
        assert exact(FUNCTIONS["rsqrt"], zero) == exact(FUNCTIONS["reciprocal"], zero) == Decimal("Infinity")
        assert exact(FUNCTIONS["sign"], zero) == exact(FUNCTIONS["sqrt"], zero) == 0
        powers = [exact(FUNCTIONS["pow"].bind(exponent), zero) for exponent in (-1.5, -1.0, 0.0, 0.5, 1.0, 2.0)]
        assert powers == [Decimal(value) for value in (INFINITY, INFINITY, 1, 0, 0, 0)]


def test_values_that_do_not_exist_are_refused() -> None:
    for name in ("sin", "cos"):
        for x in ("Infinity", "-Infinity"):
            with pytest.raises(IrError) as caught:
                exact(FUNCTIONS[name], x)
            assert caught.value.code == "HB0271"


def test_a_product_with_zero_is_zero() -> None:
    f = product(FUNCTIONS["identity"], FUNCTIONS["reciprocal"])
    assert exact(f, 0) == 0
    assert exact(f, 4) == 1
    assert exact(product(), 5) == 1
    assert exact(total(), 5) == 0
    assert product().evaluate(np.array([5.0])).tolist() == [1.0]
    assert total().evaluate(np.array([5.0])).tolist() == [0.0]


def test_compositions_run_the_first_function_first() -> None:
    f = compose(FUNCTIONS["square"], FUNCTIONS["affine"].bind(2.0, 1.0))
    assert exact(f, 3) == 19
    assert f.evaluate(np.array([3.0])).tolist() == [19.0]
    three = (FUNCTIONS["identity"], FUNCTIONS["square"], FUNCTIONS["neg"])
    assert exact(product(*three), 2) == -16
    assert product(*three).evaluate(np.array([2.0])).tolist() == [-16.0]
    assert exact(total(*three), 3) == 9
    assert total(*three).evaluate(np.array([3.0])).tolist() == [9.0]


POINTS = (
    -300.5, -64.0, -12.25, -11.5, -10.015625, -9.75, -3.1415926535, -3.0, -1.5707963, -1.25, -1e-3, -1e-12, 1e-12, 0.3,
    1.0, 1.5707963, 2.75, 4.7123889, 6.5, 9.75, 10.015625, 11.5, 40.25, 64.0, 300.5,
)  # fmt: skip


@pytest.mark.parametrize(("name", "values"), CASES)
def test_exact_rules_are_as_good_as_promised(name: str, values: tuple[float, ...]) -> None:
    f = FUNCTIONS[name].bind(*values)
    for x in POINTS:
        value = exact(f, x)
        if not value.is_finite():
            continue
        with mpmath.workdps(200):
            truth = JUDGES[name](mpmath.mpf(x), *map(mpmath.mpf, f.parameters.values()))
            error = abs(mpmath.mpf(str(value)) - truth)
            assert error <= mpmath.mpf("1e-45") * max(1, abs(x), abs(truth)), (name, x)


@pytest.mark.parametrize(("name", "values"), CASES)
def test_float_rules_take_any_shape(name: str, values: tuple[float, ...]) -> None:
    x = np.array([[0.5, 1.5, -2.5], [3.0, -0.25, 7.0]])
    got = FUNCTIONS[name].evaluate(x, *values)
    assert got.shape == x.shape
    each = [FUNCTIONS[name].evaluate(np.array(one), *values).tolist() for one in x.ravel()]
    np.testing.assert_array_equal(got.ravel(), each)
    assert FUNCTIONS[name].evaluate(np.zeros((0, 3)), *values).shape == (0, 3)


def test_float_rules_at_the_ends() -> None:
    x = np.array([-INFINITY, -1e4, 0.0, 1e4, INFINITY])
    assert FUNCTIONS["elu"].evaluate(x).tolist() == [-1.0, -1.0, 0.0, 1e4, INFINITY]
    assert FUNCTIONS["leaky_relu"].evaluate(x).tolist() == [-INFINITY, -100.0, 0.0, 1e4, INFINITY]
    assert FUNCTIONS["sigmoid"].evaluate(x).tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]
    assert FUNCTIONS["softplus"].evaluate(x).tolist() == [0.0, 0.0, math.log(2.0), 1e4, INFINITY]
    assert FUNCTIONS["mish"].evaluate(x[1:]).tolist() == [0.0, 0.0, 1e4, INFINITY]
    assert FUNCTIONS["hardswish"].evaluate(x[1:4]).tolist() == [0.0, 0.0, 1e4]


def test_functions_are_shown_by_name_and_parameters() -> None:
    assert repr(FUNCTIONS["elu"]) == "Function(name='elu', parameters=mappingproxy({'alpha': 1.0}))"
