"""Every pass keeps its promise on generated modules: run before and after, compared as the promise says."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from hbir.errors import PassError
from hbir.march import load_march
from hbir.module import Module
from hbir.testing import assert_round_trips, assert_same_semantics, modules
from passes import Pipeline, Promise, available_passes, load_pass
from passes.calibrate import FLOAT_PIPELINE
from passes.convert import convert_pipeline

DIALECTS = {
    "canonicalize": ("hbir",),
    "coarsen-grids": ("hbir", "qat"),
    "cancel-transposes": ("hbir", "qat"),
    "correct-bias": ("hbir", "qat"),
    "dead-code": ("hbir", "quantized"),
    "expand-conv-transpose": ("hbir", "qat"),
    "expand-resize": ("hbir", "qat", "quantized"),
    "fix-lut": ("quantized",),
    "fold-batch-norm": ("hbir",),
    "fold-constants": ("hbir", "qat"),
    "fold-requantize": ("quantized",),
    "fuse-activations": ("hbir",),
    "fuse-conv-add-relu": ("hbir",),
    "high-precision-output": ("quantized",),
    "insert-fake-quant": ("hbir",),
    "merge-duplicates": ("hbir", "qat", "quantized"),
    "narrow-movement": ("hbir", "quantized"),
    "prove-intervals": ("quantized",),
    "quantize": ("hbir", "qat"),
    "replace-divisions": ("hbir", "qat"),
    "replace-padding": ("hbir", "qat"),
    "unify-scales": ("hbir", "qat"),
}


def test_every_pass_is_here() -> None:
    assert set(DIALECTS) == set(available_passes())


@pytest.mark.parametrize("name", DIALECTS)
def test_promise(name: str) -> None:
    exact = load_pass(name).promise is Promise.EXACT

    @settings(max_examples=25)
    @given(modules(DIALECTS[name], 6))
    def check(module: Module) -> None:
        text = str(module)
        changed = Pipeline(name, verify="exec").run(module)
        assert str(module) == text, "a pipeline leaves its argument alone"
        assert_round_trips(changed)
        assert [a.name for a in changed[0].flatten_outputs] == [a.name for a in module[0].flatten_outputs]
        if exact:
            assert_same_semantics(module, changed)
        assert str(Pipeline(name).run(module)) == str(changed), "the same input gives the same output"

    check()


@pytest.mark.parametrize(
    "name", ["canonicalize", "dead-code", "fold-constants", "fold-batch-norm", "fuse-conv-add-relu"]
)
def test_a_second_run_finds_nothing(name: str) -> None:
    @settings(max_examples=25)
    @given(modules(("hbir",), 5))
    def check(module: Module) -> None:
        # A fold may open the way for one more; what converges does so after a handful of runs.
        pipeline = Pipeline(name)
        for _ in range(8):
            before, module = str(module), pipeline.run(module)
            if str(module) == before:
                return
        raise AssertionError(f"{name} still changes the module in its eighth run")

    check()


@settings(max_examples=25)
@given(modules(("hbir",), 8))
def test_the_float_pipeline(module: Module) -> None:
    changed = Pipeline(FLOAT_PIPELINE, verify="exec").run(module)
    assert_same_semantics(module, changed, tolerance=1e-4)


INTEGER_PIPELINE = convert_pipeline(load_march("nash-e")).replace("unify-scales", "insert-fake-quant,unify-scales")


@settings(max_examples=25)
@given(modules(("hbir",), 6))
def test_the_road_to_integers(module: Module) -> None:
    try:
        changed = Pipeline(INTEGER_PIPELINE, verify="exec").run(module)
    except PassError as error:
        assert (
            error.code == "HB0313" and error.lever
        )  # a bias far outside the range [-1, 1] that every activation has here
        return
    assert_round_trips(changed)
    assert not any(op.name.startswith("qat.") for op in changed[0].operations if op.operands)
