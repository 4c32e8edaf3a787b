"""Functions of one value, written once in two arithmetics: 50-digit decimals for the tables, which must be the same
bytes on every machine, and float64 numpy for the float interpreter. `lut.py` turns them into tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import MAX_EMAX, MIN_EMIN, ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from hbir.errors import IrError

__all__ = ["FUNCTIONS", "Function", "compose", "function_named", "product", "table_context", "total"]

Float64Array = npt.NDArray[np.float64]
ExactRule = Callable[..., Decimal]
FloatRule = Callable[..., Float64Array]
FloatDType = TypeVar("FloatDType", bound="np.floating[Any]")

PRECISION = 50
FIXED_BITS = 200
FIXED_ONE = Decimal(1 << FIXED_BITS)
ZERO, ONE, TWO, THREE, SIX, HALF = Decimal(0), Decimal(1), Decimal(2), Decimal(3), Decimal(6), Decimal("0.5")
INFINITY = Decimal("Infinity")
SMALL = Decimal(10) ** -(PRECISION + 2)
PI = Decimal(
    "3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482534211706798214808651"
)
GUARD = Context(prec=PRECISION + 10)
ROOT_PI = PI.sqrt(GUARD)
GELU_CUBIC = Decimal("0.044715")
GELU_ROOT = GUARD.divide(TWO, PI).sqrt(GUARD)


def table_context() -> Context:
    """The decimal arithmetic of every exact evaluation: 50 digits, half to even, no traps (a pole is an infinity)."""
    return Context(prec=PRECISION, rounding=ROUND_HALF_EVEN, Emin=MIN_EMIN, Emax=MAX_EMAX, traps=[])


@dataclass(frozen=True)
class Function:
    """A real function of one value with named parameters, whose order is the order of `parameters`.

    `exact_rule(x, *parameters)` takes and returns `Decimal`; it is called inside `table_context()`. Its error is
    below 1e-45 of max(1, |x|, |f(x)|), far below anything a table entry can see. Where the real function has no value
    it takes the one a saturating table wants: log(x <= 0) is minus infinity, 1/0 and rsqrt(x <= 0) are infinity, sqrt
    and fractional powers of negative numbers are 0. `float_rule` is the same in float64 numpy and follows IEEE there
    (nan, infinities).
    """

    name: str
    exact_rule: ExactRule = field(repr=False)
    float_rule: FloatRule = field(repr=False)
    parameters: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    def bind(self, *values: float, **named: float) -> Function:
        """This function with other parameter values, by position or by name; the rest keep their defaults.

        Raises `IrError` HB0270 for too many values, an unknown name or a value that is not finite.
        """
        bound = dict(self.parameters)
        if len(values) > len(bound) or not set(named) <= set(bound):
            known = ", ".join(bound) or "none"
            raise IrError(70, f"function '{self.name}' has parameters: {known}", why=f"given {values} {named}")
        bound.update(zip(bound, values, strict=False))
        bound.update(named)
        for key, value in bound.items():
            if not math.isfinite(value) and not (self.name == "clip" and math.isinf(value)):
                raise IrError(70, f"parameter {key} = {value} of function '{self.name}' is not finite")
        return Function(self.name, self.exact_rule, self.float_rule, MappingProxyType(bound))

    def exact(self, x: Decimal) -> Decimal:
        """f(x) to about 48 digits, an infinity at a pole. To be called inside `table_context()`.

        Raises `IrError` HB0271 where not even a limit exists (sine of an infinity inside a composition)."""
        result = self.exact_rule(x, *(Decimal(value) for value in self.parameters.values()))
        if result.is_nan():
            raise IrError(71, f"function '{self.name}' has no value at {x}", lever="clip the input of the table")
        return result

    def evaluate(self, x: npt.NDArray[FloatDType], *values: float) -> npt.NDArray[FloatDType]:
        """f(x) for every element, computed in float64 and rounded once to the dtype of `x`; `values` as in `bind`."""
        bound = self.bind(*values).parameters if values else self.parameters
        with np.errstate(all="ignore"):
            return np.asarray(self.float_rule(np.asarray(x, np.float64), *bound.values())).astype(x.dtype)


def function_named(name: str, parameters: Mapping[str, float] | Sequence[float] | None = None) -> Function:
    """The entry `name` of `FUNCTIONS` with `parameters` bound; `IrError` HB0272 names the known ones otherwise."""
    if name not in FUNCTIONS:
        raise IrError(72, f"there is no function '{name}'", lever=f"use one of {', '.join(sorted(FUNCTIONS))}")
    if parameters is None:
        return FUNCTIONS[name]
    if isinstance(parameters, Mapping):
        return FUNCTIONS[name].bind(**parameters)
    return FUNCTIONS[name].bind(*parameters)


def compose(*functions: Function) -> Function:
    """The functions one after the other, the first one first: `compose(hardswish, clip)` is clip(hardswish(x))."""

    def exact(x: Decimal) -> Decimal:
        for each in functions:
            x = each.exact(x)
        return x

    def floating(x: Float64Array) -> Float64Array:
        for each in functions:
            x = each.evaluate(x)
        return x

    return Function(" then ".join(each.name for each in functions), exact, floating)


def product(*functions: Function) -> Function:
    """The product of the functions at the same x: `product(identity, sigmoid)` is x * sigmoid(x). Here 0 * infinity
    is 0."""

    def exact(x: Decimal) -> Decimal:
        factors = [each.exact(x) for each in functions]
        return ZERO if ZERO in factors else math.prod(factors, start=ONE)

    def floating(x: Float64Array) -> Float64Array:
        return math.prod((each.evaluate(x) for each in functions), start=np.ones_like(x))

    return Function(" * ".join(each.name for each in functions), exact, floating)


def total(*functions: Function) -> Function:
    """The sum of the functions at the same x."""

    def exact(x: Decimal) -> Decimal:
        return sum((each.exact(x) for each in functions), start=ZERO)

    def floating(x: Float64Array) -> Float64Array:
        return sum((each.evaluate(x) for each in functions), start=np.zeros_like(x))

    return Function(" + ".join(each.name for each in functions), exact, floating)


def _clip(x: Decimal, low: Decimal, high: Decimal) -> Decimal:
    return min(max(x, low), high)


def _sigmoid(x: Decimal) -> Decimal:
    return ONE / (ONE + (-x).exp())


def _tanh(x: Decimal) -> Decimal:
    decay = (-TWO * abs(x)).exp()  # of |x|, so that an infinite x is a limit and not infinity / infinity
    return ((ONE - decay) / (ONE + decay)).copy_sign(x)


def _softplus(x: Decimal) -> Decimal:
    return max(x, ZERO) + (ONE + (-abs(x)).exp()).ln()


def _erf(x: Decimal) -> Decimal:
    """2/sqrt(pi) * exp(-x^2) * sum 2^n x^(2n+1) / (2n+1)!! (Abramowitz and Stegun 7.1.6): all terms positive.

    The sum runs in integers with 200 fractional bits, five times faster than in decimals.
    """
    if abs(x) > 11:  # erfc(11) < 1e-53
        return ONE.copy_sign(x)
    term = series = int(abs(x) * FIXED_ONE)
    doubled_square = int(TWO * x * x * FIXED_ONE)
    divisor = 1
    while term:
        divisor += 2
        term = (term * doubled_square >> FIXED_BITS) // divisor
        series += term
    return (TWO * Decimal(series) / FIXED_ONE * (-x * x).exp() / ROOT_PI).copy_sign(x)


def _taylor(term: Decimal, square: Decimal, index: int) -> Decimal:
    """term - term*square/((index+1)(index+2)) + ...: sine from (r, r^2, 1), cosine from (1, r^2, 0)."""
    series = term
    while abs(term) > SMALL:
        term = -term * square / ((index + 1) * (index + 2))
        series += term
        index += 2
    return series


def _sine(x: Decimal, quarter_turns: int = 0) -> Decimal:
    if not x.is_finite():
        return Decimal("NaN")
    turns = (x / (PI / TWO)).to_integral_value()
    rest = x - turns * (PI / TWO)
    quadrant = (int(turns) + quarter_turns) % 4
    series = _taylor(ONE, rest * rest, 0) if quadrant % 2 else _taylor(rest, rest * rest, 1)
    return -series if quadrant >= 2 else series


def _cosine(x: Decimal) -> Decimal:
    return _sine(x, 1)


def _gelu(x: Decimal) -> Decimal:
    return x * HALF * (ONE + _erf(x * HALF.sqrt()))


def _gelu_tanh(x: Decimal) -> Decimal:
    return x * HALF * (ONE + _tanh(GELU_ROOT * (x + GELU_CUBIC * x * x * x)))


def _power(x: Decimal, exponent: Decimal) -> Decimal:
    if x.is_zero():
        return ZERO if exponent > 0 else ONE if exponent.is_zero() else INFINITY
    if exponent == exponent.to_integral_value():
        return x ** int(exponent)
    return ZERO if x < 0 else x**exponent


def _square_root(x: Decimal) -> Decimal:
    return max(ZERO, x).sqrt()


def _reciprocal(x: Decimal) -> Decimal:
    return INFINITY if x.is_zero() else ONE / x


def _mish(x: Decimal) -> Decimal:
    """x * tanh(softplus(x)), with one exponential: tanh(ln(1 + w)) = (w^2 + 2w) / (w^2 + 2w + 2) for w = exp(x)."""
    if x > 0:
        decay = (-x).exp()
        return x * (ONE + TWO * decay) / (ONE + TWO * decay + TWO * decay * decay)
    growth = x.exp()
    grown = growth * (growth + TWO)
    return x * grown / (grown + TWO) if growth else ZERO


def _erf_float(x: Float64Array) -> Float64Array:
    return np.vectorize(math.erf, otypes=[np.float64])(x) if x.size else x


def _sigmoid_float(x: Float64Array) -> Float64Array:
    return 1.0 / (1.0 + np.exp(-x))


def _gelu_tanh_float(x: Float64Array) -> Float64Array:
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def _elu_float(x: Float64Array, alpha: float) -> Float64Array:
    return np.where(x > 0, x, alpha * np.expm1(x))


def _mish_float(x: Float64Array) -> Float64Array:
    return x * np.tanh(np.logaddexp(0.0, x))


def _hardsigmoid_float(x: Float64Array, alpha: float, beta: float) -> Float64Array:
    return np.clip(alpha * x + beta, 0.0, 1.0)


PLAIN: list[tuple[str, Callable[[Decimal], Decimal], Callable[[Float64Array], Float64Array]]] = [
    ("abs", lambda x: abs(x), np.abs),
    ("ceil", lambda x: x.to_integral_value(ROUND_CEILING), np.ceil),
    ("cos", _cosine, np.cos),
    ("erf", _erf, _erf_float),
    ("exp", lambda x: x.exp(), np.exp),
    ("floor", lambda x: x.to_integral_value(ROUND_FLOOR), np.floor),
    ("gelu", _gelu, lambda x: 0.5 * x * (1.0 + _erf_float(x * math.sqrt(0.5)))),
    ("gelu_tanh", _gelu_tanh, _gelu_tanh_float),
    ("hardswish", lambda x: x * _clip(x + THREE, ZERO, SIX) / SIX, lambda x: x * np.clip(x + 3.0, 0.0, 6.0) / 6.0),
    ("identity", lambda x: x, lambda x: x),
    ("log", lambda x: max(ZERO, x).ln(), np.log),
    ("mish", _mish, _mish_float),
    ("neg", lambda x: -x, np.negative),
    ("reciprocal", _reciprocal, np.reciprocal),
    ("relu", lambda x: max(x, ZERO), lambda x: np.maximum(x, 0.0)),
    ("round", lambda x: x.to_integral_value(ROUND_HALF_EVEN), np.rint),
    ("rsqrt", lambda x: ONE / max(ZERO, x).sqrt(), lambda x: 1.0 / np.sqrt(x)),
    ("sigmoid", _sigmoid, _sigmoid_float),
    ("sign", lambda x: ZERO if x.is_zero() else ONE.copy_sign(x), np.sign),
    ("silu", lambda x: x * _sigmoid(x), lambda x: x * _sigmoid_float(x)),
    ("sin", _sine, np.sin),
    ("softplus", _softplus, lambda x: np.logaddexp(0.0, x)),
    ("softsign", lambda x: x / (ONE + abs(x)), lambda x: x / (1.0 + np.abs(x))),
    ("sqrt", _square_root, np.sqrt),
    ("square", lambda x: x * x, np.square),
    ("tanh", _tanh, np.tanh),
]

OneParameter = tuple[
    str, Callable[[Decimal, Decimal], Decimal], Callable[[Float64Array, float], Float64Array], str, float
]
WITH_ONE_PARAMETER: list[OneParameter] = [
    ("elu", lambda x, alpha: x if x > 0 else alpha * (x.exp() - ONE), _elu_float, "alpha", 1.0),
    ("leaky_relu", lambda x, a: x if x > 0 else a * x, lambda x, a: np.where(x > 0, x, a * x), "alpha", 0.01),
    ("pow", _power, lambda x, exponent: np.power(x, exponent), "exponent", 2.0),
    ("swish", lambda x, b: x * _sigmoid(b * x), lambda x, b: x * _sigmoid_float(b * x), "beta", 1.0),
]

TwoParameters = tuple[
    str,
    Callable[[Decimal, Decimal, Decimal], Decimal],
    Callable[[Float64Array, float, float], Float64Array],
    dict[str, float],
]
WITH_TWO_PARAMETERS: list[TwoParameters] = [
    ("affine", lambda x, a, b: x * a + b, lambda x, a, b: x * a + b, {"scale": 1.0, "offset": 0.0}),
    ("clip", _clip, lambda x, low, high: np.clip(x, low, high), {"low": -math.inf, "high": math.inf}),
    ("hardsigmoid", lambda x, a, b: _clip(a * x + b, ZERO, ONE), _hardsigmoid_float, {"alpha": 0.2, "beta": 0.5}),
]


def _catalogue() -> dict[str, Function]:
    functions = [Function(name, exact, floating) for name, exact, floating in PLAIN]
    functions += [
        Function(name, exact, floating, MappingProxyType({parameter: default}))
        for name, exact, floating, parameter, default in WITH_ONE_PARAMETER
    ]
    functions += [
        Function(name, exact, floating, MappingProxyType(defaults))
        for name, exact, floating, defaults in WITH_TWO_PARAMETERS
    ]
    return {function.name: function for function in sorted(functions, key=lambda function: function.name)}


FUNCTIONS: Mapping[str, Function] = MappingProxyType(_catalogue())
"""Every named function. A new one is one line above; its table, its float evaluation and its tests follow."""
