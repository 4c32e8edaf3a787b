"""Texts of modules for the tests of the language server."""

from __future__ import annotations

import numpy as np

__all__ = ["MODULE", "SHORT", "pair_network"]

_F, _Q = "tensor<1x4x4x8xf32>", "tensor<1x4x4x8x!quant.uniform<i8:f32, 5.000000e-02:3>>"
_GRID = "!quant.uniform<i8:f32, 5.000000e-02:3>"

MODULE = f"""\
// Two functions: their values have the same names.
"builtin.module"() ({{
  "func.func"() <{{sym_name = "first", function_type = ({_F}) -> {_F}, arg_attrs = [{{hbir.name = "x"}}], \
res_attrs = [{{hbir.name = "y"}}]}}> ({{
  ^bb0(%arg0: {_F} loc("x")):
    %0 = "quantized.quantize"(%arg0) <{{grid = {_GRID}}}> : ({_F}) -> {_Q} loc("stage1/conv")
    %1 = "quantized.clamp"(%0) <{{low = -100 : i64, high = 100 : i64}}> : ({_Q}) -> {_Q} loc("stage1/conv")
    %2 = "quantized.dequantize"(%1) <{{grid = {_GRID}}}> : ({_Q}) -> {_F} loc(fused["stage1/out", "stage1/relu"])
    "func.return"(%2) : ({_F}) -> () loc(unknown)
  }}) : () -> () loc(unknown)
  "func.func"() <{{sym_name = "second", function_type = ({_F}) -> {_F}, arg_attrs = [{{hbir.name = "x"}}], \
res_attrs = [{{hbir.name = "y"}}]}}> ({{
  ^bb0(%arg0: {_F} loc("x")):
    %0 = "hbir.clip"(%arg0) <{{min = 0.0 : f64, max = 6.0 : f64}}> : ({_F}) -> {_F} loc("größe")
    "func.return"(%0) : ({_F}) -> () loc(unknown)
  }}) : () -> () loc(unknown)
}}) {{hbir.march = "nash-e"}} : () -> () loc(unknown)
"""

SHORT = f"""\
#layer = loc("conv1")
builtin.module attributes {{hbir.march = "nash-e"}} {{
  func.func @net(%arg0: {_F} {{hbir.name = "x"}}) -> ({_F} {{hbir.name = "y"}}) {{
    %0 = "hbir.clip"(%arg0) <{{min = 0.0 : f64, max = 6.0 : f64}}> : ({_F}) -> {_F} loc(#layer)
    func.return %0 : {_F}
  }}
}}
"""
"""The form that MLIR tools print by default, with an alias."""


def pair_network(operations: int) -> str:
    """A chain of quantise and dequantise, every pair with a scale of its own."""
    lines = [
        MODULE.splitlines()[1],
        MODULE.splitlines()[2].replace('"first"', '"net"'),
        f'  ^bb0(%arg0: {_F} loc("x")):',
    ]
    previous = "%arg0"
    for number in range(0, operations, 2):
        grid = f"!quant.uniform<i8:f32, {float(np.float32(0.01 + number * 1e-6)):.16e}>"
        kind, layer = f"tensor<1x4x4x8x{grid}>", f'loc("block{number // 10}/pair")'
        lines.append(f'    %{number} = "quantized.quantize"({previous}) <{{grid = {grid}}}> : ({_F}) -> {kind} {layer}')
        previous = f"%{number + 1}"
        operand = f"(%{number}) <{{grid = {grid}}}> : ({kind}) -> {_F} {layer}"
        lines.append(f'    {previous} = "quantized.dequantize"{operand}')
    lines.append(f'    "func.return"({previous}) : ({_F}) -> () loc(unknown)')
    return "\n".join([*lines, "  }) : () -> () loc(unknown)", "}) : () -> () loc(unknown)", ""])
