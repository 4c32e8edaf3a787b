"""Every rule by itself: an instruction that is legal, and the smallest changes that one rule, named by its text, refuses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from backends.nash.isa import View
from backends.nash.isa.opcodes import BY_NAME
from backends.nash.isa.rules import RuleError

WORD = 1 << 31
RANGES = {"i8": (-128, 127), "i16": (-(1 << 15), (1 << 15) - 1), "i32": (-WORD, WORD - 1)}


def view(text: str) -> View:
    """``i8 2x3``; ``i8`` alone has no axes."""
    dtype, _, extents = text.partition(" ")
    return View.dense("L1M", dtype, tuple(map(int, extents.split("x"))) if extents else (), 0)


@dataclass(frozen=True)
class Case:
    """A legal instruction. `zero_points` says whose type bounds which parameter, `shifts` which are used, and `clamped`
    whether low and high are."""

    opcode: str
    views: Mapping[str, str]
    params: Mapping[str, int]
    zero_points: Mapping[str, str]
    shifts: tuple[str, ...] = ()
    clamped: bool = True


def check(case: Case, changes: Mapping[str, str | int | None]) -> None:
    """The opcode's rule on the case with changes: views are texts, parameters are numbers, None takes one away."""
    views = dict(case.views) | {name: text for name, text in changes.items() if not isinstance(text, int)}
    params = dict(case.params) | {name: value for name, value in changes.items() if isinstance(value, int)}
    # The order of the opcode, as `Decoded` has it.
    order = [operand.name for operand in BY_NAME[case.opcode].operands]
    given = {name: view(text) for name in order if (text := views.get(name)) is not None}
    assert not set(views) - set(order)
    BY_NAME[case.opcode].rule(given, params)


OUT = {"shift": 2, "zp_out": 0, "low": -128, "high": 127, "multiplier": 1}
WINDOW = {"kernel_h": 3, "kernel_w": 2, "stride_h": 2, "stride_w": 3}
CASES = {
    "LOAD": Case("LOAD", {"src": "i8 2x3", "dst": "i8 2x3"}, {}, {}, clamped=False),
    "CONV": Case(
        "CONV",
        # rows (9 + 1 + 2 - 2 * 2 - 1) // 2 + 1 = 4, columns (13 + 2 + 1 - 3 - 1) // 3 + 1 = 5, depth 3 * 2 * 4 / 2 = 12
        {"x": "i8 2x9x13x4", "weight": "i8 384", "bias": "i32 6", "multiplier": "i32 6", "shift": "i8 6",
         "residual": "i8 2x4x5x6", "partial": "i32 2x4x5x6", "out": "i8 2x4x5x6"},
        {**WINDOW, "pad_top": 1, "pad_bottom": 2, "pad_left": 2, "pad_right": 1, "dilation_h": 2, "dilation_w": 3,
         "groups": 2, "weight_bits": 8, "pad_value": 0, "zp_out": 0, "low": -128, "high": 127, "residual_zp": 0,
         "residual_shift": 2, "output_shift": 2},
        {"pad_value": "x", "zp_out": "out", "residual_zp": "residual"},
        ("residual_shift", "output_shift"),
    ),
    "MATMUL": Case(
        "MATMUL", {"a": "i8 2x1x3x4", "b": "i8 5x4x6", "out": "i8 2x5x3x6"},
        {**OUT, "zp_a": 0, "zp_b": 0, "scale": 0},
        {"zp_a": "a", "zp_b": "b", "zp_out": "out"}, ("shift",),
    ),
    "ADD": Case(
        "ADD", {"a": "i8 3x1x4", "b": "i16 2x4", "out": "i8 3x2x4"},
        {**OUT, "zp_a": 0, "zp_b": 0, "shift_a": 2, "shift_b": 2},
        {"zp_a": "a", "zp_b": "b", "zp_out": "out"}, ("shift_a", "shift_b", "shift"),
    ),
    "MUL": Case(
        "MUL", {"a": "i8 3x1x4", "b": "i16 2x4", "out": "i8 3x2x4"}, {**OUT, "zp_a": 0, "zp_b": 0},
        {"zp_a": "a", "zp_b": "b", "zp_out": "out"}, ("shift",),
    ),
    "MAXIMUM": Case("MAXIMUM", {"a": "i8 3x1x4", "b": "i8 2x4", "out": "i8 3x2x4"}, {}, {}, clamped=False),
    "CLAMP": Case("CLAMP", {"x": "i8 2x3", "out": "i8 2x3"}, {"low": -1, "high": 1}, {}),
    "RESCALE": Case(
        "RESCALE", {"x": "i16 2x3", "out": "i8 2x3"}, {**OUT, "zp_in": 0}, {"zp_in": "x", "zp_out": "out"}, ("shift",),
    ),
    "RESCALE of channels": Case(
        "RESCALE", {"x": "i32 2x5x3", "multiplier": "i32 3", "shift": "i8 3", "out": "i16 2x5x3"},
        {**OUT, "zp_in": 0, "shift": 0}, {"zp_in": "x", "zp_out": "out"},
    ),
    "TABLE8": Case("TABLE8", {"x": "i8 2x3", "table": "i16 256", "out": "i16 2x3"}, {}, {}, clamped=False),
    "TABLE16": Case("TABLE16", {"x": "i16 2x3", "table": "i16 513", "out": "i8 2x3"}, OUT, {}, ("shift",)),
    "REDUCE_SUM": Case(
        "REDUCE_SUM", {"x": "i16 2x3x4", "out": "i8 2x1x1"}, {**OUT, "zp_in": 0, "axes": 0b110},
        {"zp_in": "x", "zp_out": "out"}, ("shift",),
    ),
    "REDUCE_MAX": Case("REDUCE_MAX", {"x": "i8 2x3x4", "out": "i8 1x3x1"}, {"axes": 0b101}, {}, clamped=False),
    "SOFTMAX": Case(
        "SOFTMAX", {"x": "i8 2x3", "exp_table": "i16 256", "reciprocal_table": "i16 513", "out": "i16 2x3"},
        {**OUT, "axis": 1}, {"zp_out": "out"}, ("shift",),
    ),
    "SEGMENTED": Case(
        "SEGMENTED", {"x": "i16 2x3", "starts": "i16 64", "spacings": "i8 64", "entries": "i16 64x64", "out": "i16 2x3"},
        {}, {}, clamped=False,
    ),
    "MAXPOOL": Case(
        # rows (9 + 1 + 2 - 3) // 2 + 1 = 5, columns (12 + 1 - 2) // 3 + 1 = 4
        "MAXPOOL", {"x": "i8 2x9x12x4", "out": "i8 2x5x4x4"},
        {**WINDOW, "pad_top": 1, "pad_bottom": 2, "pad_left": 1, "pad_right": 0}, {}, clamped=False,
    ),
    "AVGPOOL": Case(
        "AVGPOOL", {"x": "i8 2x9x12x4", "out": "i8 2x5x4x4"},
        {**WINDOW, "pad_top": 2, "pad_bottom": 1, "pad_left": 0, "pad_right": 1, "zp_in": 0, "zp_out": 0, "low": -128,
         "high": 127},
        {"zp_in": "x", "zp_out": "out"},
    ),
    "RESIZE_NEAREST": Case(
        "RESIZE_NEAREST", {"x": "i8 2x3x4x5", "rows": "i32 6", "columns": "i32 7", "out": "i8 2x6x7x5"}, {}, {},
        clamped=False,
    ),
    "RESIZE_BILINEAR": Case(
        # rows ((4 - 1) * 6 - 1 + 3) / 4 + 1 = 6, columns ((3 - 1) * 9 + 4 - 1) / 7 + 1 = 4
        "RESIZE_BILINEAR", {"x": "i8 2x4x3x5", "out": "i8 2x6x4x5"},
        {**OUT, "zp_in": 0, "scale_yn": 6, "scale_yd": 4, "scale_xn": 9, "scale_xd": 7, "offset_y": 1, "offset_x": -4,
         "border_y": 3, "border_x": -1},
        {"zp_in": "x", "zp_out": "out"}, ("shift",),
    ),
    "QUANTIZE": Case("QUANTIZE", {"x": "f32 2x3", "out": "i8 2x3"}, {"zp": 0, "low": -1, "high": 1}, {"zp": "out"}),
    "DEQUANTIZE": Case(
        "DEQUANTIZE", {"x": "i8 2x5x3", "scales": "f32 3", "out": "f32 2x5x3"}, {"zp": 0}, {"zp": "x"}, clamped=False
    ),
    "ARGMAX": Case("ARGMAX", {"x": "i8 2x3x4", "out": "i32 2x4"}, {"axis": 1}, {}, clamped=False),
    "HOST_CALL": Case(
        "HOST_CALL", {"operand0": "i8 1", "operand1": "f32 2", "operand2": "i8 3"}, {"inputs": 2}, {}, clamped=False
    ),
}  # fmt: skip

Change = Mapping[str, str | int | None]
RAW: Change = {"multiplier": None, "shift": None, "residual": None}
FLOAT: Change = {"multiplier": "f32 6", "shift": None, "residual": None, "out": "f32 2x4x5x6"}

ALLOWED: list[tuple[str, Change]] = [
    *((name, {}) for name in CASES),
    ("CONV", {"bias": None, "partial": None, "residual": None}),
    ("CONV", {"residual": None, "residual_shift": 0, "output_shift": 0}),
    ("CONV", {**RAW, "out": "i32 2x4x5x6", "low": 1, "high": 0}),
    ("CONV", {**RAW, "out": "i64 2x4x5x6"}),
    ("CONV", {"x": "i16 2x9x13x4", "bias": "i64 6", "partial": "i64 2x4x5x6"}),
    ("CONV", {"weight": "i16 384", "weight_bits": 16}),
    ("CONV", {**FLOAT, "low": 1, "high": 0}),
    ("CONV", {**FLOAT, "partial": None, "x": "i16 2x9x13x4", "bias": "i64 6"}),
    ("MATMUL", {"a": "i8 3x4", "b": "i8 4x6", "out": "i8 3x6"}),
    ("MATMUL", {"out": "f32 2x5x3x6", "scale": 0x3F800000, "shift": 0}),
    ("ADD", {"a": "i8", "b": "i16", "out": "i16"}),
    ("CLAMP", {"low": 1, "high": 1}),
    ("TABLE8", {"table": "i8 256", "out": "i8 2x3"}),
    ("REDUCE_SUM", {"axes": 0b111, "out": "i8 1x1x1"}),
    ("REDUCE_SUM", {"axes": 0b001, "out": "i8 1x3x4"}),
    ("SOFTMAX", {"x": "i16 2x3", "exp_table": "i16 513"}),
    ("SEGMENTED", {"starts": "i16 1", "spacings": "i8 1", "entries": "i16 1x64"}),
    # one pad less than the window at each side: (9 + 2 + 2 - 3) // 2 + 1 = 6, (12 + 1 + 1 - 2) // 3 + 1 = 5
    ("MAXPOOL", {"pad_top": 2, "pad_bottom": 2, "pad_left": 1, "pad_right": 1, "out": "i8 2x6x5x4"}),
    ("DEQUANTIZE", {"scales": None}),
    ("ARGMAX", {"axis": 0, "out": "i64 3x4"}),
    ("ARGMAX", {"axis": 2, "out": "i64 2x3"}),
    ("HOST_CALL", {"inputs": 0}),
]

REFUSED: list[tuple[str, Change, str]] = [
    ("LOAD", {"dst": "i8 3x2"}, "'dst' has shape (3, 2), 'src' has (2, 3)"),
    ("LOAD", {"dst": "u8 2x3"}, "'dst' holds u8, 'src' holds i8"),
    ("CONV", {"x": "i8 9x13x4"}, "'x' has 3 axes, not 4"),
    ("CONV", {"out": "i8 1x2x4x5x6"}, "'out' has 5 axes, not 4"),
    ("CONV", {"groups": 3}, "4 input and 6 output channels do not split into 3 groups"),
    ("CONV", {"groups": 4}, "4 input and 6 output channels do not split into 4 groups"),
    ("CONV", {"out": "i8 1x4x5x6"}, "the window gives (2, 4, 5, 6)"),
    ("CONV", {"out": "i8 2x3x5x6"}, "the window gives (2, 4, 5, 6)"),
    ("CONV", {"out": "i8 2x4x6x6"}, "the window gives (2, 4, 5, 6)"),
    ("CONV", {"weight_bits": 16}, "'weight' holds i8, weight_bits is 16"),
    ("CONV", {"weight": "i8 383"}, "the packed layout takes 384 elements"),
    ("CONV", {"weight": "i8 1x384"}, "the packed layout takes 384 elements"),
    ("CONV", {"bias": "i64 6"}, "'bias' holds i64, the accumulator is i32"),
    ("CONV", {"x": "i16 2x9x13x4"}, "'bias' holds i32, the accumulator is i64"),
    ("CONV", {"bias": "i32 5"}, "'bias' has shape (5,), there are 6 output channels"),
    ("CONV", {"multiplier": "i32 7"}, "'multiplier' has shape (7,), there are 6"),
    ("CONV", {"shift": "i8 1"}, "'shift' has shape (1,), there are 6"),
    ("CONV", {"partial": "i32 2x4x5x5"}, "'partial' has shape (2, 4, 5, 5), 'out' has"),
    ("CONV", {"partial": "i64 2x4x5x6"}, "'partial' holds i64, the accumulator is i32"),
    ("CONV", {"shift": None}, "come together"),
    ("CONV", {"multiplier": None, "out": "i32 2x4x5x6", "residual": None}, "come together"),
    ("CONV", {**RAW, "out": "i32 2x4x5x6", "residual": "i8 2x4x5x6"}, "takes no residual"),
    ("CONV", RAW, "a raw accumulator is i32 or i64"),
    ("CONV", {**RAW, "out": "i32 2x4x5x6", "pad_value": 128}, "pad_value = 128 is not a value of i8"),
    ("CONV", {**FLOAT, "out": "i8 2x4x5x6"}, "a float result and a float 'multiplier' come together"),
    ("CONV", {"out": "f32 2x4x5x6"}, "a float result and a float 'multiplier' come together"),
    ("CONV", {**RAW, "out": "f32 2x4x5x6"}, "a float result and a float 'multiplier' come together"),
    ("CONV", {**FLOAT, "shift": "i8 6"}, "takes neither 'shift' nor 'residual'"),
    ("CONV", {**FLOAT, "residual": "i8 2x4x5x6"}, "takes neither 'shift' nor 'residual'"),
    ("CONV", {**FLOAT, "multiplier": "f32 1"}, "'multiplier' has shape (1,), there are 6"),
    ("MATMUL", {"out": "f32 2x5x3x6"}, "a float result has a scale"),
    ("MATMUL", {"scale": 1}, "an integer one has none"),
    ("CONV", {"residual": "i8 2x4x6x5"}, "'residual' has shape (2, 4, 6, 5), 'out' has"),
    ("MATMUL", {"a": "i8 4", "out": "i8 5x6"}, "do not multiply"),
    ("MATMUL", {"b": "i8 4", "out": "i8 2x1x3"}, "do not multiply"),
    ("MATMUL", {"b": "i8 5x3x6"}, "do not multiply"),
    ("MATMUL", {"a": "i8 2x3x4"}, "do not broadcast"),
    ("MATMUL", {"out": "i8 2x5x6x3"}, "the product has (2, 5, 3, 6)"),
    ("MATMUL", {"b": "i16 5x4x6"}, "'b' holds i16, 'a' holds i8"),
    ("ADD", {"b": "i16 3x4"}, "'out' has shape (3, 2, 4), the operands give (3, 3, 4)"),
    ("ADD", {"b": "i16 2x3"}, "do not broadcast"),
    ("MAXIMUM", {"out": "i8 3x1x4"}, "the operands give (3, 2, 4)"),
    ("MAXIMUM", {"b": "i16 2x4"}, "'b' holds i16, 'a' holds i8"),
    ("MAXIMUM", {"out": "i16 3x2x4"}, "'out' holds i16, 'a' holds i8"),
    ("CLAMP", {"out": "i8 3x2"}, "'out' has shape (3, 2)"),
    ("CLAMP", {"out": "i16 2x3"}, "'out' holds i16"),
    ("RESCALE", {"out": "i8 3x2"}, "'out' has shape (3, 2)"),
    ("RESCALE of channels", {"shift": None}, "come together"),
    ("RESCALE of channels", {"multiplier": None}, "come together"),
    ("RESCALE of channels", {"multiplier": "i32 2"}, "'multiplier' has shape (2,), the last axis is (3,)"),
    ("RESCALE of channels", {"shift": "i8 2x3"}, "'shift' has shape (2, 3), the last axis is (3,)"),
    ("TABLE8", {"out": "i16 3x2"}, "'out' has shape (3, 2)"),
    ("TABLE8", {"table": "i16 513"}, "not (256,)"),
    ("TABLE8", {"table": "i8 256"}, "'out' holds i16, 'table' holds i8"),
    ("TABLE16", {"table": "i16 256"}, "not (513,)"),
    ("TABLE16", {"table": "i16 1x513"}, "not (513,)"),
    ("SEGMENTED", {"out": "i16 3x2"}, "'out' has shape (3, 2)"),
    ("SEGMENTED", {"starts": "i16 65", "spacings": "i8 65", "entries": "i16 65x64"}, "1 to 64 segments"),
    ("SEGMENTED", {"starts": "i16 0", "spacings": "i8 0", "entries": "i16 0x64"}, "1 to 64 segments"),
    ("SEGMENTED", {"starts": "i16 1x1", "spacings": "i8 1", "entries": "i16 1x64"}, "1 to 64 segments"),
    ("SEGMENTED", {"spacings": "i8 63"}, "'spacings' has shape (63,), there are 64"),
    ("SEGMENTED", {"entries": "i16 63x64"}, "not (64, 64)"),
    ("SEGMENTED", {"entries": "i16 64x65"}, "not (64, 64)"),
    ("REDUCE_SUM", {"axes": 0, "out": "i8 2x3x4"}, "names an axis that 3 axes do not have"),
    ("REDUCE_SUM", {"axes": 0b1000, "out": "i8 2x3x4"}, "names an axis that 3 axes do not have"),
    ("REDUCE_SUM", {"out": "i8 2x3x1"}, "the reduction gives (2, 1, 1)"),
    ("REDUCE_MAX", {"out": "i8 2x1x1"}, "the reduction gives (1, 3, 1)"),
    ("REDUCE_MAX", {"out": "i16 1x3x1"}, "'out' holds i16, 'x' holds i8"),
    ("SOFTMAX", {"out": "i16 3x2"}, "'out' has shape (3, 2)"),
    ("SOFTMAX", {"axis": 2}, "axis 2 of 2"),
    ("SOFTMAX", {"exp_table": "i16 513"}, "'exp_table' has shape (513,), not (256,)"),
    ("SOFTMAX", {"x": "i16 2x3"}, "'exp_table' has shape (256,), not (513,)"),
    ("SOFTMAX", {"reciprocal_table": "i16 256"}, "'reciprocal_table' has shape (256,), not (513,)"),
    ("MAXPOOL", {"x": "i8 9x12x4"}, "'x' has 3 axes, not 4"),
    ("MAXPOOL", {"out": "i8 5x4x4"}, "'out' has 3 axes, not 4"),
    ("MAXPOOL", {"out": "i16 2x5x4x4"}, "'out' holds i16, 'x' holds i8"),
    ("MAXPOOL", {"out": "i8 1x5x4x4"}, "the window gives (2, 5, 4, 4)"),
    ("MAXPOOL", {"out": "i8 2x4x5x4"}, "the window gives (2, 5, 4, 4)"),
    ("MAXPOOL", {"out": "i8 2x5x4x3"}, "the window gives (2, 5, 4, 4)"),
    ("MAXPOOL", {"pad_top": 3, "pad_bottom": 0}, "leaves windows without input"),
    ("MAXPOOL", {"pad_top": 0, "pad_bottom": 3}, "leaves windows without input"),
    ("MAXPOOL", {"pad_left": 2, "pad_right": 0, "out": "i8 2x5x5x4"}, "leaves windows without input"),
    ("MAXPOOL", {"pad_left": 0, "pad_right": 2, "out": "i8 2x5x5x4"}, "leaves windows without input"),
    ("RESIZE_NEAREST", {"x": "i8 3x4x5"}, "'x' has 3 axes, not 4"),
    ("RESIZE_NEAREST", {"out": "i8 6x7x5"}, "'out' has 3 axes, not 4"),
    ("RESIZE_NEAREST", {"out": "i16 2x6x7x5"}, "'out' holds i16"),
    ("RESIZE_NEAREST", {"out": "i8 1x6x7x5"}, "batch and channels of 'x' are 2 and 5"),
    ("RESIZE_NEAREST", {"out": "i8 2x6x7x4"}, "batch and channels of 'x' are 2 and 5"),
    ("RESIZE_NEAREST", {"rows": "i32 3"}, "'rows' has shape (3,), the result has 6"),
    ("RESIZE_NEAREST", {"columns": "i32 4"}, "'columns' has shape (4,), the result has 7"),
    ("RESIZE_BILINEAR", {"x": "i8 4x3x5"}, "'x' has 3 axes, not 4"),
    ("RESIZE_BILINEAR", {"out": "i8 6x4x5"}, "'out' has 3 axes, not 4"),
    ("RESIZE_BILINEAR", {"border_y": 4}, "ends between two positions"),
    ("RESIZE_BILINEAR", {"border_x": 0}, "ends between two positions"),
    ("RESIZE_BILINEAR", {"out": "i8 1x6x4x5"}, "the scale gives (2, 6, 4, 5)"),
    ("RESIZE_BILINEAR", {"out": "i8 2x6x4x6"}, "the scale gives (2, 6, 4, 5)"),
    ("RESIZE_BILINEAR", {"border_y": 7}, "the scale gives (2, 7, 4, 5)"),
    ("RESIZE_BILINEAR", {"border_x": 6}, "the scale gives (2, 6, 5, 5)"),
    ("QUANTIZE", {"out": "i8 3x2"}, "'out' has shape (3, 2)"),
    ("DEQUANTIZE", {"scales": "f32 2"}, "'scales' has shape (2,), the last axis is (3,)"),
    ("DEQUANTIZE", {"scales": "f32 2x3"}, "'scales' has shape (2, 3), the last axis is (3,)"),
    ("ARGMAX", {"axis": 3, "out": "i32 2x3x4"}, "axis 3 of 3"),
    ("ARGMAX", {"out": "i32 4x2"}, "'out' has shape (4, 2), not (2, 4)"),
    ("ARGMAX", {"out": "i32 2x1x4"}, "'out' has shape (2, 1, 4), not (2, 4)"),
    ("HOST_CALL", {"operand1": None, "inputs": 1}, "without a gap"),
    ("HOST_CALL", {"inputs": -1}, "-1 of 3 operands are inputs"),
    ("HOST_CALL", {"inputs": 3}, "3 of 3 operands are inputs"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes"), ALLOWED)
def test_what_fits_is_allowed(name: str, changes: Change) -> None:
    check(CASES[name], changes)


@pytest.mark.parametrize(("name", "changes", "words"), REFUSED)
def test_one_rule_refuses_what_does_not_fit(name: str, changes: Change, words: str) -> None:
    with pytest.raises(RuleError) as caught:
        check(CASES[name], changes)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", CASES)
def test_numbers_are_bounded_on_both_sides(name: str) -> None:
    case = CASES[name]
    bounds = dict.fromkeys(case.shifts, (2, 62, "is not between 2 and 62"))
    for key, operand in case.zero_points.items():
        bounds[key] = (*RANGES[view(case.views[operand]).dtype], "is not a value of")
    for key, (low, high, words) in bounds.items():
        check(case, {key: low})
        check(case, {key: high})
        for value in (low - 1, high + 1):
            with pytest.raises(RuleError, match=words) as caught:
                check(case, {key: value})
            assert str(caught.value).startswith(f"{key} = {value} ")


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.clamped])
def test_clamps_are_ranges_of_the_result(name: str) -> None:
    case = CASES[name]
    low, high = RANGES[view(case.views["out"]).dtype]
    check(case, {"low": low, "high": high})
    check(case, {"low": 0, "high": 0})
    for bad in ({"low": low - 1, "high": 0}, {"low": 0, "high": high + 1}, {"low": 1, "high": 0}):
        with pytest.raises(RuleError, match="is not a range of"):
            check(case, bad)


@pytest.mark.parametrize("dtype", ["i32", "i64"])
def test_wide_results_are_clamped_to_32_bits(dtype: str) -> None:
    case = CASES["MATMUL"]
    wide = {"out": f"{dtype} 2x5x3x6"}
    check(case, {**wide, "low": -WORD, "high": WORD - 1})
    for bad in ({"low": -WORD - 1, "high": 0}, {"low": 0, "high": WORD}):
        with pytest.raises(RuleError, match=f"is not a range of {dtype}"):
            check(case, {**wide, **bad})


def test_every_opcode_with_a_rule_is_tried() -> None:
    tried = {BY_NAME[case.opcode].rule for case in CASES.values()}
    assert {opcode.rule for opcode in BY_NAME.values()} - tried == {BY_NAME["NOP"].rule}
    assert BY_NAME["FILL"].rule is BY_NAME["NOP"].rule
