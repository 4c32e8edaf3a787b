"""Tables are judged alone, by the error that they record."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest

from hbir.dialects import quantized as q
from hbir.dialects.quant import UniformQuantizedType
from hbir.errors import PassError
from hbir.module import Module
from hbir.testing import Seeded
from hbir.testing.graphs import SeededGraph
from passes import Pipeline, fix_lut
from passes.debugging.bisect import bisect
from passes.debugging.equivalence import generated_feeds
from passes.debugging.recorded import beyond_record, recorded_error
from tests.passes.planted import FAULTS


def chain(*grids: UniformQuantizedType, function: str = "sigmoid") -> Module:
    """Functions one after another, from grid to grid."""
    graph = SeededGraph(Seeded(0))
    x = graph.input((1, 64), grids[0])
    for grid in grids[1:]:
        x = graph.add(
            q.FunctionOp.make(x, function=function, parameters=(0.9,) if function == "leaky_relu" else None, grid=grid)
        )
    return graph.finish()


I8 = UniformQuantizedType.get(8, 0.03, 0)
COARSE = UniformQuantizedType.get(8, 0.25, 3)
I16 = UniformQuantizedType.get(16, 0.0005)


@pytest.mark.parametrize("grids", [(I8, I8, COARSE), (I16, I16, I16), (I8, I16, I8)])
@pytest.mark.parametrize("function", ["sigmoid", "gelu", "reciprocal"])
def test_tables_keep_what_they_record(grids: tuple[UniformQuantizedType, ...], function: str) -> None:
    module = chain(*grids, function=function)
    try:
        after = Pipeline("fix-lut{bound=70000}", verify="exec").run(module)
    except PassError as error:
        pytest.fail(str(error))
    feeds = {function.name: generated_feeds(function) for function in module}
    step = fix_lut.FixLut(bound=70000)

    def run(piece: Module) -> Module:
        step.run(piece)
        return piece

    found = list(beyond_record(module, after, run, feeds))
    assert len(found) == 3 * (len(grids) - 1) and all(each.steps <= each.allowed for each in found)


def test_a_table_behind_others_is_found_by_its_own_error() -> None:
    """The fault is of one step, far below what rounding does to whole networks."""
    module = chain(I8, I8, COARSE, function="leaky_relu")
    fault = next(fault for fault in FAULTS if fault.step == "fix-lut")
    with fault.planted():
        with pytest.raises(PassError, match="HB0305.*steps where it records 0"):
            Pipeline("fix-lut", verify="exec").run(module)
        found = bisect(module, "fix-lut")
        assert found.fault is not None and found.fault.operation == "quantized.function"
        assert found.judged[-1].unit == "steps" and found.judged[-1].allowed == 0
        assert len(found.fault.layers) == 1


def test_an_error_that_is_not_recorded_is_found() -> None:
    module = chain(I16, I16)
    after = Pipeline("fix-lut").run(module)
    (made,) = [op for op in after[0].operations if isinstance(op, q.InterpolateOp | q.SegmentedOp)]
    assert recorded_error(made.results[0]) >= 0
    with mock.patch.object(fix_lut, "best_int16_table", _unrecorded), pytest.raises(PassError, match="HB0305"):
        Pipeline("fix-lut", verify="exec").run(module)


_best = fix_lut.best_int16_table


def _unrecorded(*arguments: object) -> object:
    """A table with one entry far off, and the error of the right one."""
    table, error = _best(*arguments)
    entries = np.array(table.entries)
    entries.reshape(-1)[entries.size // 4 :] += 900
    return type(table)(**{**vars(table), "entries": entries}), error


def test_a_rescale_behind_a_table_brings_its_steps_along() -> None:
    """1 / x jumps at 0: it goes by way of int16 steps, which are finer by 256 than those of the result."""
    after = Pipeline("fix-lut{bound=70000}").run(chain(I16, I8, function="reciprocal"))
    (output,) = [argument.value for argument in after[0].flatten_outputs]
    assert isinstance(output.owner, q.RescaleOp) and isinstance(table := output.owner.input.owner, q.SegmentedOp)
    assert recorded_error(output) == pytest.approx(1 + recorded_error(table.output) / 256, rel=0.02)
    assert recorded_error(after[0].flatten_inputs[0].value) == 0
