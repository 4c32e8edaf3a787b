"""A whole function through Arm's TOSA reference model at once: the judge of how operations work together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from hbir.dialects.base import Array
from hbir.dialects.hbir import ConstantOp
from hbir.errors import SimulationError
from hbir.interpreter import check_input
from hbir.ir.locations import layer_name
from hbir.module import Function, Module
from hbir.testing.checked import checked_feeds, checked_function, refusal

if TYPE_CHECKING:
    from hbir.testing.oracles.tosa_lowering import Lowering

__all__ = ["assert_agrees_with_tosa", "tosa_outputs"]


def tosa_outputs(function: Function | Module, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs of a function by name, as `function.feed(feeds)` gives them, computed by Arm's reference model.

    The function (of a module: its first) becomes one TOSA graph, which runs once. Compare with `==`. In the graph are

    - every integer operation of the dialect `quantized`. What TOSA has no op for is made of several: int16 by int16
      convolutions (GATHER and MATMUL), grouped ones, zero points of int16, saturation beyond what RESCALE promises, segmented
      tables. The table of `quantized.function` is the project's own, so that of it only the lookup is judged;
    - operations of the dialect `hbir` on quantised values or int8, int16 and int32: movements, `max_pool`, `maximum`,
      `minimum`, `reduce` (max, min), `argmax`, `cast`; `add` and `sub` of int32.

    Outside of the graph, in numpy and by their formulas, are `quantize` of inputs and constants, `dequantize` of what is
    returned, and movements of those floats. Everything else is refused: `SimulationError` HB0794 for an operation that no
    graph says exactly (float arithmetic, floats between operations, what exceeds TOSA's limits), HB0790 for values that TOSA
    leaves open, with the first operation that makes them (sums beyond int32). IrError HB0245 for what is no function, or no
    set of its inputs, HB0222 for an array that does not fit; ImportError without the package `tosa-tools`::

        expected = module[0].feed(feeds)
        for name, value in tosa_outputs(module, feeds).items():
            assert np.array_equal(value, expected[name])
    """
    function = checked_function(function[0] if isinstance(function, Module) else function)
    (feeds,) = checked_feeds([feeds])
    arguments = function.flatten_inputs
    names = [argument.name for argument in arguments]
    if set(feeds) != set(names):
        raise refusal("feeds", f"feed exactly {names}")(f"an input set of {sorted(map(str, feeds))}", "it takes others")
    arrays = {a.value: check_input(a.name, feeds[a.name], a.value.type) for a in arguments}
    lowering = _lowered(function, arrays)
    try:
        results = lowering.run([lowering.outside(each.value) for each in function.flatten_outputs])
    except SimulationError as error:
        if error.code != "HB0790":
            raise
        raise _located(function, arrays, error) from error
    return {output.name: array for output, array in zip(function.flatten_outputs, results, strict=True)}


def assert_agrees_with_tosa(function: Function | Module, feeds: Mapping[str, Array]) -> None:
    """Every output of the function equals that of the reference model: dtypes, shapes and values. See `tosa_outputs`.

    Raises AssertionError with the name of the output, and what `tosa_outputs` raises."""
    wanted = tosa_outputs(function, feeds)
    found = (function[0] if isinstance(function, Module) else function).feed(feeds)
    for name, got in found.items():
        np.testing.assert_array_equal(got, wanted[name], err_msg=f"output '{name}'", strict=True)


def _lowered(function: Function, arrays: Mapping[Any, Array], stop: int | None = None) -> Lowering:
    """The graph of the first `stop` operations (None: of all) and where each value is."""
    from hbir.testing.oracles.tosa_arithmetic import QUANTIZED
    from hbir.testing.oracles.tosa_lowering import Lowering, check_shape, inexact, is_float
    from hbir.testing.oracles.tosa_movements import MOVEMENTS

    handlers = {**MOVEMENTS, **QUANTIZED}
    operations = function.operations
    constants = {op.output: op.array(function.module.constants) for op in operations if isinstance(op, ConstantOp)}
    lowering = Lowering({**constants, **arrays})
    for op in operations[:stop]:
        if isinstance(op, ConstantOp):
            continue
        if not is_float(op.results[0].type):
            check_shape(op, op.results[0].type)
        handler: Any = handlers.get(type(op))  # pyright: ignore[reportArgumentType]
        if handler is None:
            raise inexact(op, "it is float arithmetic, or nothing that the profile computes")
        lowering.values[op.results[0]] = handler(lowering, op)
    return lowering


def _located(function: Function, arrays: Mapping[Any, Array], error: SimulationError) -> SimulationError:
    """The same error with the first operation at which it appears."""
    operations = function.operations
    fine, broken = 0, len(operations)
    while broken - fine > 1:
        middle = (fine + broken) // 2
        lowering = _lowered(function, arrays, middle)
        values = [value for op in operations[:middle] for value in op.results if value in lowering.values]
        try:
            lowering.run([lowering.outside(value) for value in values])
            fine = middle
        except SimulationError:
            broken = middle
    op = operations[broken - 1]
    return SimulationError(
        90,
        f"{error.what} at {op.name}",
        where=f"layer '{layer_name(op)}'",
        why=f"{error.why}, with these inputs, where this project's integers may be wider",
        lever="feed smaller values, or compare the parts of the function before and behind it",
    )
