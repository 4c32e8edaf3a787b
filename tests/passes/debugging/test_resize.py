"""Shorter axes: what is built again verifies and runs, constants go along, and what needs its extents keeps them."""

from __future__ import annotations

import numpy as np
import pytest

from hbir import export
from hbir.dialects import hbir as f
from hbir.dialects import quantized as q
from hbir.dialects.base import shape_of
from hbir.dialects.hbir import ConstantOp
from hbir.module import Module
from hbir.testing import Seeded, example_feeds, generate
from passes import calibrate, convert
from passes.debugging import reduce as reducing
from passes.debugging.reduce import reduce


def shapes(module: Module) -> list[tuple[int, ...]]:
    """Those of inputs and constants."""
    inputs = [argument.type.shape for argument in module[0].flatten_inputs]
    return inputs + [shape_of(op.output.type) for op in module[0].operations if isinstance(op, ConstantOp)]


def holds_of(module: Module, kind: type, needed: int = 1) -> bool:
    """An operation of a class, with a result that has an axis of some length."""
    found = [op for op in module[0].operations if isinstance(op, kind)]
    return any(max(shape_of(op.results[0].type), default=0) >= needed for op in found)


@pytest.fixture(name="tiny", scope="module")
def imported() -> Module:
    return export("tests/data/tiny.onnx")


@pytest.fixture(name="quantized", scope="module")
def converted(tiny: Module) -> Module:
    return convert(calibrate(tiny, [example_feeds(tiny[0])]), "nash-e")


@pytest.mark.parametrize("kind", [f.Conv2dOp, f.MulOp, f.TransposeOp])
def test_a_float_network_gets_small(tiny: Module, kind: type) -> None:
    small = reduce(tiny, lambda candidate: holds_of(candidate, kind))
    assert len(shapes(small)) >= 1 and {n for shape in shapes(small) for n in shape} <= {1}
    small[0].feed(example_feeds(small[0]))


@pytest.mark.parametrize("kind", [q.Conv2dOp, q.QuantizeOp])
def test_scales_and_multipliers_of_channels_go_along(quantized: Module, kind: type) -> None:
    small = reduce(quantized, lambda candidate: holds_of(candidate, kind))
    assert {n for shape in shapes(small) for n in shape} <= {1}, str(small)
    small[0].feed(example_feeds(small[0]))


def test_what_an_operation_states_of_its_shape_stays(quantized: Module) -> None:
    """A mean over 8 x 8 values has a multiplier for 64: of other maps it would be another operation."""
    small = reduce(quantized, lambda candidate: holds_of(candidate, q.ReduceSumOp))
    assert shapes(small) == [(1, 8, 8, 1)]


def test_what_is_needed_stays(tiny: Module) -> None:
    for needed in (3, 5):
        small = reduce(tiny, lambda candidate, least=needed: holds_of(candidate, f.Conv2dOp, least))
        assert max(n for shape in shapes(small) for n in shape) == needed
    plain = reduce(tiny, lambda candidate: holds_of(candidate, f.Conv2dOp), simplify=False)
    assert max(n for shape in shapes(plain) for n in shape) > 5, "pieces of a network keep their shapes"


def test_chains_of_several_operations_get_small(tiny: Module) -> None:
    """Nothing is cut out here: the axes alone get shorter, through convolutions, sums and what moves data."""
    names = [op.name for op in tiny[0].operations]
    small = reduce(tiny, lambda candidate: [op.name for op in candidate[0].operations] == names)
    before, after = (sum(int(np.prod(shape)) for shape in shapes(module)) for module in (tiny, small))
    assert after < before / 10
    small[0].feed(example_feeds(small[0]))


def test_every_candidate_verifies_or_is_dropped_and_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the operation: a module that was built with shorter axes is a module like any other."""
    taken = 0
    for seed in range(40):
        module = generate(Seeded(seed), ("hbir", "qat", "quantized"), 3)
        names = [op.name for op in module[0].operations]

        def run(candidate: Module, wanted: list[str] = names) -> bool:
            candidate[0].feed(example_feeds(candidate[0]))
            return sorted(op.name for op in candidate[0].operations) == sorted(wanted)

        monkeypatch.setattr(reducing, "_CUTS", ())
        monkeypatch.setattr(reducing, "_SIMPLER", ())
        small = reduce(module, run)
        small.verify()
        taken += sum(int(np.prod(s)) for s in shapes(small)) < sum(int(np.prod(s)) for s in shapes(module))
    assert taken > 25


TRANSPOSED = """
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<9x500xf32>) -> tensor<500x9xf32>}> ({
  ^bb0(%x: tensor<9x500xf32>):
    %0 = "hbir.transpose"(%x) <{permutation = array<i64: 1, 0>}> : (tensor<9x500xf32>) -> tensor<500x9xf32>
    "func.return"(%0) : (tensor<500x9xf32>) -> ()
  }) : () -> ()
}) : () -> ()
"""


def test_a_long_axis_takes_few_tests() -> None:
    tests = 0

    def holds(candidate: Module) -> bool:
        nonlocal tests
        tests += 1
        return candidate[0].flatten_inputs[0].type.shape[-1] >= 200

    start = Module.parse(TRANSPOSED)
    assert reduce(start, holds)[0].flatten_inputs[0].type.shape == (1, 200)
    assert tests < 60
