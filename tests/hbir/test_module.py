"""The user's handles: modules, functions, arguments."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from xdsl.dialects.builtin import StringAttr

from hbir import statistics
from hbir.errors import IrError
from hbir.module import Module
from hbir.testing import assert_round_trips, modules

TWO = """
"builtin.module"() ({
  "func.func"() <{sym_name = "first", function_type = (tensor<2xf32>) -> tensor<2xf32>}> ({
  ^bb0(%x: tensor<2xf32>):
    %0 = "hbir.clip"(%x) <{min = 0.0 : f64}> : (tensor<2xf32>) -> tensor<2xf32>
    %1 = "hbir.add"(%0, %x) : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
    %2 = "hbir.clip"(%1) <{max = 6.0 : f64}> : (tensor<2xf32>) -> tensor<2xf32>
    "func.return"(%2) : (tensor<2xf32>) -> ()
  }) : () -> ()
  "func.func"() <{sym_name = "second", function_type = (tensor<1x!quant.uniform<i8:f32, 0.5:3>>, tensor<f32>)
    -> (tensor<f32>, tensor<1x!quant.uniform<i8:f32, 0.5:3>>)}> ({
  ^bb0(%q: tensor<1x!quant.uniform<i8:f32, 0.5:3>>, %y: tensor<f32>):
    "func.return"(%y, %q) : (tensor<f32>, tensor<1x!quant.uniform<i8:f32, 0.5:3>>) -> ()
  }) : () -> ()
}) : () -> ()
"""


def test_functions_by_number_and_name() -> None:
    module = Module.parse(TWO)
    assert [f.name for f in module] == ["first", "second"] == [f.name for f in module.graphs]
    assert module["second"].name == module[1].name == module[-1].name
    with pytest.raises(IrError, match="HB0233.*'third'"):
        module["third"]
    assert statistics(module) == {"first": [("hbir.clip", 2), ("hbir.add", 1)], "second": []}
    assert_round_trips(module)


def test_arguments_say_what_they_are() -> None:
    q, y = Module.parse(TWO)["second"].flatten_inputs
    assert (q.type.shape, q.type.np_dtype, q.name) == ((1,), np.int8, "_input_0")
    info = q.type.quant_info
    assert info is not None
    assert (info.scale, info.zero_point, info.limits) == (0.5, 3, (-128, 127))
    assert (y.type.shape, y.type.np_dtype, y.type.quant_info) == ((), np.float32, None)
    assert repr(y) == "<input _input_1: tensor<f32>>"


def test_names_and_descriptions_survive() -> None:
    module = Module.parse(TWO)
    function = module["second"]
    function.flatten_inputs[1].name = "größe"
    function.flatten_outputs[0].desc = 'a "scalar"\n'
    again = Module.parse(str(module))["second"]
    assert [a.name for a in again.flatten_inputs] == ["_input_0", "größe"]
    assert [a.desc for a in again.flatten_outputs] == ['a "scalar"\n', ""]
    with pytest.raises(IrError, match="HB0230.*'größe'"):
        function.flatten_inputs[0].name = "größe"
    function.flatten_inputs[1].name = "größe"  # its own name is free


def test_equal_names_in_a_text_are_refused() -> None:
    module = Module.parse(TWO)
    for argument in module["second"].flatten_inputs:
        module["second"].annotate(argument.index, "hbir.name", "x", is_input=True)
    with pytest.raises(IrError, match="HB0230.*'x'"):
        Module.parse(str(module))


def test_march_travels_with_the_module() -> None:
    module = Module.parse(TWO)
    assert module.march is None
    module.march = "nash-m"
    assert Module.parse(str(module)).march == "nash-m" == module.clone().march
    module.op.attributes["hbir.march"] = StringAttr("x")
    assert module.march == "x"


@given(modules(("hbir", "quantized"), 5))
def test_a_clone_is_apart_and_shares_the_constants(module: Module) -> None:
    text, clone = str(module), module.clone()
    assert clone.constants is module.constants
    clone[0].op.detach()
    assert clone.functions == []
    assert str(module) == text


def test_an_unknown_dialect_is_refused() -> None:
    with pytest.raises(IrError, match="HB0205.*tosa.abs"):
        Module.parse(TWO.replace("hbir.add", "tosa.abs"))
