"""The rounding of the integers in all its forms, against Python's integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hbir.torch.integers.rescaling import Requantise, rescaling

CPU = torch.device("cpu")


def exact(x: int, m: int, s: int) -> int:
    return (x * m + (1 << (s - 1))) >> s


def values_near(bound: int, m: int, s: int, offset: int) -> list[int]:
    """Values within the bound at its ends, around 0 and around places where the result steps."""
    steps = [((2 * k + 1) << (s - 1)) // max(m, 1) - offset for k in (-130, -129, -128, -1, 0, 1, 126, 127)]
    found = {v + d for v in (*steps, 0, -offset, bound, -bound) for d in (-2, -1, 0, 1, 2)}
    return sorted(v for v in found if abs(v) <= bound and abs(v + offset) <= bound)


@st.composite
def cases(draw: st.DrawFn, bits: int) -> tuple[int, int, int, int]:
    """(bound, m, s, offset)."""
    bound = 1 << draw(st.integers(8, bits))
    bound -= draw(st.integers(0, 3))
    # Even multipliers and powers of two have ties, which imported models bring.
    m = draw(st.one_of(st.integers(0, (1 << 31) - 1), st.integers(0, 30).map(lambda k: 1 << k)))
    return bound, m, draw(st.integers(2, 62)), draw(st.integers(-bound // 2, bound // 2))


@settings(deadline=None, max_examples=400)
@given(cases(46))
def test_every_form_of_the_rescale_is_exact(case: tuple[int, int, int, int]) -> None:
    bound, m, s, offset = case
    run, reach = rescaling([m], [s], bound, CPU, [offset])
    given_values = values_near(bound, m, s, offset)
    for value, got in zip(given_values, run(torch.tensor(given_values)).tolist(), strict=True):
        want = exact(value + offset, m, s)
        assert abs(want) <= reach
        # Beyond 2^46 a result is outside every type, and only its side counts.
        assert got == want if abs(want) < 1 << 46 else (got > 0) == (want > 0) and abs(got) >= 1 << 45


@settings(deadline=None, max_examples=400)
@given(cases(31), st.sampled_from([8, 16, 32]), st.integers(-128, 127))
def test_codes_are_the_clamped_rescale(case: tuple[int, int, int, int], bits: int, zero_point: int) -> None:
    bound, m, s, offset = case
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    last = Requantise([m], [s], bound, CPU, offset=[offset], zero_point=zero_point, low=low, high=high)
    x = torch.tensor(values_near(bound, m, s, offset))
    out = torch.empty(x.shape, dtype={8: torch.int8, 16: torch.int16, 32: torch.int32}[bits])
    last(out, x)
    want = [min(max(exact(int(v) + offset, m, s) + zero_point, low), high) for v in x]
    assert out.tolist() == want


def test_the_quick_form_is_exact_for_every_accumulator() -> None:
    # Both signs, ties (m a power of two) and the largest shift that the quick form takes, over all values of 16 bits.
    x = torch.arange(-(1 << 16), 1 << 16)
    for m, s in ((16385, 21), (32767, 28), (1 << 14, 20), (3 << 13, 24)):
        last: Any = Requantise([m], [s], 1 << 17, CPU, zero_point=3, low=-100, high=90)
        assert last._magic
        out = torch.empty(x.shape, dtype=torch.int8)
        last(out, x.to(torch.float32))
        want = np.clip(((x.numpy() * m + (1 << (s - 1))) >> s) + 3, -100, 90)
        np.testing.assert_array_equal(out.numpy(), want)


def test_channels_have_their_own_multipliers() -> None:
    m, s, offset = [20001, 32767, 0], [20, 30, 2], [5, -7, 100]
    x = torch.arange(-3000, 3000).reshape(-1, 3) * 100
    for bound in (1 << 20, 1 << 40, 1 << 46):  # one form after another
        run, _ = rescaling(m, s, bound, CPU, offset)
        want = [[exact(int(v) + offset[c], m[c], s[c]) for c, v in enumerate(row)] for row in x]
        assert run(x).tolist() == want


def test_what_cannot_be_computed_is_refused() -> None:
    with pytest.raises(ValueError, match="leave what is computed exactly"):
        rescaling([(1 << 31) - 1], [40], 1 << 47, CPU)
