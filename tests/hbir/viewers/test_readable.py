"""Types, properties and operands as people read them."""

from __future__ import annotations

import numpy as np
import pytest
from xdsl.dialects.builtin import FunctionType, f32

from hbir import Module
from hbir.dialects.base import tensor
from hbir.dialects.quant import UniformQuantizedType
from hbir.viewers.readable import named_operands, properties_of, readable_property, readable_type, value_names


@pytest.mark.parametrize(
    ("element", "text"),
    [
        (f32, "1x2 f32"),
        (UniformQuantizedType.get(8, 0.5, 3), "1x2 int8, scale 0.5, zero point 3"),
        (UniformQuantizedType.get(16, 0.5, narrow=True), "1x2 int16 in -32767…32767, scale 0.5, zero point 0"),
        (UniformQuantizedType.get(8, [0.5, 2], axis=1), "1x2 int8, 2 scales along axis 1: 0.5…2, zero points 0"),
        (
            UniformQuantizedType.get(8, [0.5, 2], [-1, 4], axis=1),
            "1x2 int8, 2 scales along axis 1: 0.5…2, zero points -1…4",
        ),
    ],
)
def test_types(element: UniformQuantizedType, text: str) -> None:
    assert readable_type(tensor((1, 2), element)) == text


def test_other_types_are_shown_as_written() -> None:
    assert readable_type(tensor((), f32)) == "scalar f32"
    assert readable_type(FunctionType.from_lists([f32], [])) == "(f32) -> ()"


def test_properties() -> None:
    assert (
        readable_property((1, 2)) == "[1, 2]" and readable_property(0.1) == "0.1" and readable_property(True) == "True"
    )
    assert readable_property(np.arange(20)) == "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, … 20 values]"
    assert readable_property(float("inf")) == "inf" and readable_property("mode") == "mode"


def test_operands_have_the_names_of_their_definition() -> None:
    module = Module.parse(
        """"builtin.module"() ({
        "func.func"() <{sym_name = "f", function_type = (tensor<1x2xf32>) -> tensor<1x4xf32>}> ({
        ^bb0(%x: tensor<1x2xf32>):
          %c = "hbir.concat"(%x, %x) <{axis = 1 : i64}> : (tensor<1x2xf32>, tensor<1x2xf32>) -> tensor<1x4xf32>
          "func.return"(%c) : (tensor<1x4xf32>) -> ()
        }) : () -> ()
        }) : () -> ()"""
    )
    (concat,) = module[0].operations
    names = [name for name, _ in named_operands(concat)]
    assert names == ["inputs0", "inputs1"] and dict(properties_of(concat)) == {"axis": 1}
    assert list(value_names(module[0]).values()) == ["%arg0", "%0"]
