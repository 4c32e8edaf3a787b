"""Running functions: hooks, freeing, errors, and what running does not need."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from xdsl.ir import Operation

from hbir.errors import IrError
from hbir.ir.locations import layer_name
from hbir.module import Module
from hbir.testing import example_feeds, modules


def _chain(length: int, shape: str = "1000") -> Module:
    lines = [f'%{i + 1} = "hbir.sub"(%{i}, %{i}) : (T, T) -> T loc("s{i}")' for i in range(length)]
    text = f"""
"builtin.module"() ({{
  "func.func"() <{{sym_name = "main", function_type = (T) -> T}}> ({{
  ^bb0(%0: T):
    {chr(10).join(lines)}
    "func.return"(%{length}) : (T) -> ()
  }}) : () -> ()
}}) : () -> ()
"""
    return Module.parse(text.replace("T", f"tensor<{shape}xf32>"))


@given(modules(("hbir", "qat", "quantized"), 6))
def test_hooks_see_every_result_once_and_in_order(module: Module) -> None:
    function = module[0]
    seen: list[Operation] = []
    shapes: list[tuple[int, ...]] = []

    def hook(op: Operation, results: Any) -> None:
        seen.append(op)
        shapes.extend(array.shape for array in results)
        assert len(results) == len(op.results)

    feeds = example_feeds(function)
    with_hook = function.feed(feeds, hook)
    plain = function.feed(feeds)
    assert seen == [op for op in function.operations if op.name != "hbir.constant"]
    assert shapes == [r.type.get_shape() for op in seen for r in op.results]
    for name, array in plain.items():
        np.testing.assert_array_equal(with_hook[name], array, strict=True)


def test_values_are_freed_after_their_last_use() -> None:
    function = _chain(6)[0]
    alive: list[weakref.ref[Any]] = []
    most = 0

    def hook(op: Operation, results: Any) -> None:
        nonlocal most
        alive.append(weakref.ref(results[0]))
        gc.collect()
        most = max(most, sum(ref() is not None for ref in alive))

    (result,) = function.prepare().run([np.ones(1000, np.float32)], hook)
    assert most == 2  # the operand and the result of the step that runs
    assert result.shape == (1000,)


def test_a_value_that_is_returned_and_read_stays() -> None:
    text = str(_chain(2, "2")).replace('"func.return"(%1) : (tensor<2xf32>) -> ()', "RETURN")
    text = text.replace("RETURN", '"func.return"(%1, %0, %arg0) : (tensor<2xf32>, tensor<2xf32>, tensor<2xf32>) -> ()')
    text = text.replace("-> tensor<2xf32>, sym_name", "-> (tensor<2xf32>, tensor<2xf32>, tensor<2xf32>), sym_name")
    outputs = Module.parse(text)[0](np.ones(2, np.float32))
    assert [list(map(float, output)) for output in outputs] == [[0, 0], [0, 0], [1, 1]]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (np.ones(2, np.float64), "float64"),
        (np.ones(3, np.float32), "float32.3."),
        (np.ones((1, 2), np.float32), "float32.1, 2."),
        ([1, 2], "int64"),
    ],
)
def test_inputs_are_not_cast(value: Any, why: str) -> None:
    with pytest.raises(IrError, match=f"HB0222: input '_input_0' is {why}"):
        _chain(1, "2")[0].feed({"_input_0": value})


def test_names_must_fit() -> None:
    function = _chain(1, "2")[0]
    with pytest.raises(IrError, match=r"HB0232.*missing: \['_input_0'\], unknown: \['x'\]"):
        function.feed({"x": np.ones(2, np.float32)})
    with pytest.raises(IrError, match="HB0232: 2 arrays for 1 inputs"):
        function(np.ones(2, np.float32), np.ones(2, np.float32))


EMPTY = """
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<0x2xf32>) -> tensor<2xi64>}> ({
  ^bb0(%0: tensor<0x2xf32>):
    %1 = "hbir.argmax"(%0) <{axis = 0 : i64, keep = false}> : (tensor<0x2xf32>) -> tensor<2xi64> loc("best")
    "func.return"(%1) : (tensor<2xi64>) -> ()
  }) : () -> ()
}) : () -> ()
"""


def test_errors_name_the_layer() -> None:
    with pytest.raises(IrError, match="HB0220 at layer 'best': hbir.argmax cannot be evaluated; .*empty"):
        Module.parse(EMPTY)[0](np.ones((0, 2), np.float32))


def test_a_prepared_function_runs_many_times() -> None:
    prepared = _chain(3)[0].prepare()
    x = np.ones(1000, np.float32)
    first, second = prepared.run([x])[0], prepared.run([x])[0]
    np.testing.assert_array_equal(first, second)
    with pytest.raises(ValueError, match="argument"):
        prepared.run([x, x])


def test_layer_names_of_operations() -> None:
    assert [layer_name(op) for op in _chain(2)[0].operations] == ["s0", "s1"]


def test_the_language_needs_neither_numba_nor_onnx_nor_torch() -> None:
    code = (
        "import sys, hbir, passes\n"
        "from hbir.module import Module\n"
        "bad = {'numba', 'onnx', 'torch', 'onnxruntime', 'hypothesis', 'llvmlite'} & set(sys.modules)\n"
        "sys.exit(f'imported: {bad}' if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
