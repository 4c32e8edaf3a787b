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

from hbir.dialects.base import HbOperation
from hbir.dialects.hbir import ClipOp, ConstantOp
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


def _without_buffers(module: Module, feeds: dict[str, Any]) -> list[Any]:
    """Every value of the first function, each operation into memory of its own."""
    function = module[0]
    values: dict[Any, Any] = {a.value: feeds[a.name] for a in function.flatten_inputs}
    for op in function.operations:
        if isinstance(op, ConstantOp):
            values[op.output] = op.array(module.constants)
            continue
        assert isinstance(op, HbOperation)
        operands = [None if value is None else values[value] for value in op.aligned_operands]
        out = op.evaluator([None] * len(operands))(*operands)
        # Elements lie in order between operations: numpy takes another loop for others, and floats another last bit.
        arrays = [np.asarray(each, order="C") for each in (out if isinstance(out, tuple) else (out,))]
        values.update(zip(op.results, arrays, strict=True))
    return [values[a.value] for a in function.flatten_outputs]


@given(modules(("hbir", "quantized"), 10))
def test_buffers_hold_one_value_at_a_time(module: Module) -> None:
    feeds = [example_feeds(module[0], seed) for seed in (0, 1, 2)]
    expected = [_without_buffers(module, feed) for feed in feeds]
    names = [argument.name for argument in module[0].flatten_inputs]
    one, other = module[0].prepare(), module[0].prepare()
    kept: list[list[Any]] = []
    for index in (0, 1, 1, 0, 2):
        arrays = [feeds[index][name].copy() for name in names]
        kept.append(one.run(arrays))
        other.run([feeds[1][name] for name in names])
        for got, wanted in zip(kept[-1], expected[index], strict=True):
            np.testing.assert_array_equal(got, wanted, strict=True)
    for results, index in zip(kept, (0, 1, 1, 0, 2), strict=True):  # later runs change nothing that was handed out
        for got, wanted in zip(results, expected[index], strict=True):
            np.testing.assert_array_equal(got, wanted, strict=True)


VIEWS = """
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (Q) -> Q}> ({
  ^bb0(%0: Q):
    %1 = "quantized.clamp"(%0) <{low = -100 : i64, high = 100 : i64}> : (Q) -> Q
    %2 = "hbir.reshape"(%1) <{shape = array<i64: 10>}> : (Q) -> R
    %3 = "quantized.clamp"(%0) <{low = -3 : i64, high = 3 : i64}> : (Q) -> Q
    %4 = "quantized.clamp"(%3) <{low = -2 : i64, high = 2 : i64}> : (Q) -> Q
    %5 = "quantized.clamp"(%4) <{low = -1 : i64, high = 1 : i64}> : (Q) -> Q
    %6 = "hbir.reshape"(%2) <{shape = array<i64: 2, 5>}> : (R) -> Q
    "func.return"(%6) : (Q) -> ()
  }) : () -> ()
}) : () -> ()
"""


def test_dead_values_share_memory_and_views_keep_theirs() -> None:
    text = VIEWS.replace("Q", "tensor<2x5x!quant.uniform<i8:f32, 0.5>>")
    function = Module.parse(text.replace("R", "tensor<10x!quant.uniform<i8:f32, 0.5>>"))[0]
    places: list[int] = []
    x = np.arange(-5, 5, dtype=np.int8).reshape(2, 5)
    (result,) = function.prepare().run([x], lambda op, results: places.append(results[0].ctypes.data))
    np.testing.assert_array_equal(result, x, strict=True)
    viewed, reshaped, first, second, third, again = places
    assert viewed == reshaped == again
    assert first == third != second  # two buffers carry a chain of any length
    assert viewed not in (first, second)
    assert result.ctypes.data != viewed


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


def test_floats_lie_in_order_wherever_they_come_from() -> None:
    """Numpy takes other loops for arrays with gaps, with another last bit; what is computed must not depend on them."""
    text = """
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<64x8xf32>) -> tensor<7x61xf32>}> ({
  ^bb0(%x: tensor<64x8xf32>):
    %0 = "hbir.transpose"(%x) <{permutation = array<i64: 1, 0>}> : (tensor<64x8xf32>) -> tensor<8x64xf32>
    %1 = "hbir.slice"(%0) <{begin = array<i64: 0, 1>, end = array<i64: 7, 62>, step = array<i64: 1, 1>}>
      : (tensor<8x64xf32>) -> tensor<7x61xf32>
    %2 = "hbir.function"(%1) <{function = "sigmoid"}> : (tensor<7x61xf32>) -> tensor<7x61xf32>
    %3 = "hbir.pow"(%2, %1) : (tensor<7x61xf32>, tensor<7x61xf32>) -> tensor<7x61xf32>
    "func.return"(%3) : (tensor<7x61xf32>) -> ()
  }) : () -> ()
}) : () -> ()
"""
    function = Module.parse(text)[0]
    seen: list[bool] = []
    x = np.random.default_rng(0).random((8, 64), np.float32)
    name = function.flatten_inputs[0].name
    strided = function.feed({name: x.T}, lambda _, results: seen.extend(r.flags.c_contiguous for r in results))
    (packed,) = function.feed({name: np.ascontiguousarray(x.T)}).values()
    assert all(seen) and len(seen) == 4
    assert next(iter(strided.values())).tobytes() == packed.tobytes()
    cut = np.ascontiguousarray(x[:7, 1:62])
    apart = (1 / (1 + np.exp(-cut.astype(np.float64)))) ** cut
    np.testing.assert_allclose(packed, apart, rtol=1e-6)


def test_an_evaluation_that_gives_another_type_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<2x3xf32>) -> tensor<2x3xf32>}> ({
  ^bb0(%x: tensor<2x3xf32>):
    %0 = "hbir.clip"(%x) <{min = 0.0 : f64}> : (tensor<2x3xf32>) -> tensor<2x3xf32> loc("act")
    "func.return"(%0) : (tensor<2x3xf32>) -> ()
  }) : () -> ()
}) : () -> ()
"""
    function = Module.parse(text)[0]
    for wrong in (np.zeros((2, 2), np.float32), np.zeros((2, 3)), (np.zeros((2, 3), np.float32),) * 2):
        monkeypatch.setattr(ClipOp, "evaluate", lambda *_, given=wrong, **__: given)
        with pytest.raises(IrError, match="HB0220 at layer 'act': hbir.clip gives .*its type says float32"):
            function(np.zeros((2, 3), np.float32))
