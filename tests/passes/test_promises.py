"""Every pass keeps its promise on generated modules: run before and after, compared as the promise says."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from hbir.errors import PassError
from hbir.march import load_march
from hbir.module import Module
from hbir.testing import assert_round_trips, assert_same_semantics, modules
from passes import Pipeline, available_passes
from passes.calibrate import FLOAT_PIPELINE
from passes.convert import convert_pipeline
from tests.fuzz.promises import DIALECTS, keep_promise


def test_every_pass_is_here() -> None:
    assert set(DIALECTS) == set(available_passes())


@pytest.mark.parametrize("name", DIALECTS)
def test_promise(name: str) -> None:
    @settings(max_examples=15)
    @given(modules(DIALECTS[name], 6))
    def check(module: Module) -> None:
        keep_promise(name, module)

    check()


@pytest.mark.parametrize(
    "name", ["canonicalize", "dead-code", "fold-constants", "fold-batch-norm", "fuse-conv-add-relu"]
)
def test_a_second_run_finds_nothing(name: str) -> None:
    @settings(max_examples=15)
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


@settings(max_examples=15)
@given(modules(("hbir",), 8))
def test_the_float_pipeline(module: Module) -> None:
    changed = Pipeline(FLOAT_PIPELINE, verify="exec").run(module)
    assert_same_semantics(module, changed, tolerance=1e-4)


INTEGER_PIPELINE = convert_pipeline(load_march("nash-e")).replace("unify-scales", "insert-fake-quant,unify-scales")


@settings(max_examples=10)  # each runs the module behind each of some twenty passes
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
