"""How far values lie apart: lists of numbers exactly, long texts around their first difference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from xdsl.dialects import builtin as b
from xdsl.ir import Attribute

from hbir.dialects.base import tensor
from hbir.dialects.quant import UniformQuantizedType
from hbir.ir.apart import LONGEST, attribute_note, distance_text, excerpts, numbers_note


@given(start=st.text(alphabet="ab, …", max_size=300), ends=st.tuples(*[st.text(alphabet="ab, …", max_size=300)] * 2))
def test_excerpts_of_different_texts_differ_and_are_short(start: str, ends: tuple[str, str]) -> None:
    one, other = (start + end for end in ends)
    assume(one != other)
    shown = excerpts(one, other)
    assert shown[0] != shown[1]
    assert all(len(text) <= LONGEST + 2 for text in shown)
    if max(len(one), len(other)) <= LONGEST:
        assert shown == (one, other)


def test_excerpts_hold_whole_numbers_around_the_first_difference() -> None:
    one = ", ".join(str(10_000 + at) for at in range(60))
    shown = excerpts(one, one.replace("10040", "99999"))
    assert "10040" in shown[0] and "99999" in shown[1]
    for text in shown:
        assert text.startswith("…") and text.endswith("…")
        assert all(len(number) == 5 for number in text.strip("…, ").split(", "))


def test_a_long_text_beside_none_is_cut() -> None:
    assert excerpts("x" * 500, "") == ("x" * LONGEST + "…", "")


def test_equal_long_texts_show_their_start() -> None:
    assert excerpts("a" + "x" * 500, "a" + "x" * 500) == ("a" + "x" * (LONGEST - 1) + "…",) * 2


def integers(*numbers: int, width: int = 32) -> Attribute:
    return b.DenseArrayBase.from_list(b.IntegerType(width), numbers)


def grid(*scales: float, zero_points: tuple[int, ...] = ()) -> UniformQuantizedType:
    return UniformQuantizedType.get(8, scales, zero_points or 0, axis=0 if len(scales) > 1 else -1)


@pytest.mark.parametrize(
    ("one", "other", "note"),
    [
        (
            integers(*[5] * 15, 23941), integers(*[5] * 15, 23946),
            "1 of 16 numbers differ, by 5 at most; first at 15: 23941 -> 23946",
        ),
        (integers(1, 2, 3), integers(4, 2, -9), "2 of 3 numbers differ, by 12 at most; first at 0: 1 -> 4"),
        (integers(1, 2), integers(1, 2, 3), "2 -> 3 numbers; first at 2: none -> 3"),
        (integers(1, 2), integers(7), "2 -> 1 numbers; first at 0: 1 -> 7"),
        (
            integers(0, (1 << 63) - 1, width=64), integers(0, (1 << 63) - 2, width=64),
            "1 of 2 numbers differ, by 1 at most; first at 1: 9223372036854775807 -> 9223372036854775806",
        ),
        (
            integers(0, (1 << 63) - 1, width=64), integers(0, -(1 << 63), width=64),
            "1 of 2 numbers differ, by 18446744073709551615 at most; first at 1: 9223372036854775807 -> -9223372036854775808",
        ),
        (integers(1, 2), integers(1, 2, width=64), "no number differs in value"),
        (integers(7), integers(8), ""),
        (integers(7, 8), None, ""),
        (b.StringAttr("a"), b.StringAttr("b"), ""),
        (
            b.DenseArrayBase.from_list(b.f32, [0.5, 1.0]), b.DenseArrayBase.from_list(b.f32, [0.5, 0.75]),
            "1 of 2 numbers differ, by 0.25 at most; first at 1: 1.0 -> 0.75",
        ),
        (
            b.ArrayAttr([b.IntegerAttr(1 << 70, 128), b.IntegerAttr(2, 128)]),
            b.ArrayAttr([b.IntegerAttr((1 << 70) + 1, 128), b.IntegerAttr(2, 128)]),
            f"1 of 2 numbers differ, by 1 at most; first at 0: {1 << 70} -> {(1 << 70) + 1}",
        ),
        (
            b.DenseIntOrFPElementsAttr.from_list(b.TensorType(b.i32, [3]), [1, 2, 3]),
            b.DenseIntOrFPElementsAttr.from_list(b.TensorType(b.i32, [3]), [1, 2, 5]),
            "1 of 3 numbers differ, by 2 at most; first at 2: 3 -> 5",
        ),
        (
            tensor((2, 3), grid(0.5, 0.25)), tensor((2, 3), grid(0.5, 0.125)),
            "scales: 1 of 2 numbers differ, by 0.125 at most; first at 1: 0.25 -> 0.125",
        ),
        (
            tensor((2, 3), grid(0.5, 0.25, zero_points=(1, 2))), tensor((2, 3), grid(0.5, 0.25, zero_points=(1, -2))),
            "zero points: 1 of 2 numbers differ, by 4 at most; first at 1: 2 -> -2",
        ),
        (tensor((2, 3), grid(0.5)), tensor((2, 3), grid(0.25)), ""),
        (tensor((2, 3), b.f32), tensor((2, 4), b.f32), ""),
        (
            b.FunctionType.from_lists([tensor((2,), grid(0.5, 0.25))], []),
            b.FunctionType.from_lists([tensor((2,), grid(0.5, 0.5))], []),
            "scales: 1 of 2 numbers differ, by 0.25 at most; first at 1: 0.25 -> 0.5",
        ),
    ],
)  # fmt: skip
def test_lists_of_numbers_are_told_by_count_distance_and_first_place(
    one: Attribute, other: Attribute | None, note: str
) -> None:
    assert attribute_note(one, other) == note
    assert attribute_note(one, one) == attribute_note(None, one) == ""


def test_the_place_in_a_tensor_has_an_index_for_each_axis() -> None:
    one = np.zeros((2, 3), np.float32)
    other = one.copy()
    other[1, 2] = np.nan
    assert numbers_note(one, other) == "1 of 6 numbers differ, some from NaN or infinity; first at [1, 2]: 0.0 -> nan"
    assert numbers_note(one[0, 0], one[0, 0] + 1) == "1 of 1 numbers differ, by 1 at most; 0.0 -> 1.0"


@pytest.mark.parametrize(
    ("distance", "text"), [(11392.0, "11392"), (4294967295.0, "4294967295"), (0.125, "0.125"), (1e300, "1e+300")]
)
def test_whole_distances_are_told_in_full(distance: float, text: str) -> None:
    assert distance_text(distance) == text
