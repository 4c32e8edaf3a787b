"""Faults planted in passes: the strategies find each within 200 examples; `bisect` names pass, operation and element."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, find, settings

from hbir.errors import HbError
from hbir.ir.locations import layer_name
from hbir.module import Module
from hbir.testing import assert_same_semantics, example_feeds
from passes import Pipeline
from passes.debugging.bisect import bisect
from tests.passes.planted import FAULTS, Fault

EXAMPLES = 200
TOLERANCE = 1e-4
"""What rounding floats in another order may change, relative to the largest value."""
SEARCH = settings(
    max_examples=EXAMPLES,
    phases=[Phase.generate],  # what is found is cut down by `reduce`
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def breaks(module: Module, fault: Fault) -> bool:
    """Whether the pipeline with the fault makes other values. Where it raises there is no element to be named."""
    try:
        wanted = Pipeline(fault.pipeline).run(module) if fault.rounds else module
        with fault.planted():
            changed = Pipeline(fault.pipeline).run(module)
    except HbError:
        return False
    try:
        assert_same_semantics(wanted, changed, tolerance=TOLERANCE)
    except AssertionError:
        return True
    return False


def search(fault: Fault, seed: int) -> Module:
    """The first example that the fault breaks; `find` raises where none of the first 200 does."""
    tried: list[Module] = []

    def fails(module: Module) -> bool:
        tried.append(module)
        return breaks(module, fault)

    module = find(fault.examples, fails, settings=SEARCH, random=random.Random(seed))
    assert len(tried) <= EXAMPLES
    return module


def from_constants(module: Module, layer: str) -> bool:
    """Whether no input has a part in the value of a layer."""
    known = [argument.value for argument in module[0].flatten_inputs]
    for op in module[0].operations:
        if any(value in known for value in op.operands):
            known += op.results
            if layer_name(op) == layer:
                return False
    return True


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_found_and_named(fault: Fault) -> None:
    module, *_ = [search(fault, seed) for seed in range(fault.seeds)]
    if fault.rounds:  # the pass changes values by itself: there is no first one that is wrong
        assert {op.name for op in module[0].operations} & set(fault.operations)
        return
    tolerances = {fault.step: TOLERANCE} if fault.slight else {}
    with fault.planted():
        feeds = [example_feeds(module[0], seed) for seed in range(3)]
        found = bisect(module, fault.pipeline, feeds, tolerances=tolerances).fault
        assert found is not None and found.stage.partition("{")[0] == fault.step
        if fault.operations:
            assert found.operation in fault.operations
        else:
            assert from_constants(found.case, found.layer)
        assert len(found.layers) <= 4, "the case is a handful of operations"
        assert found.layer in found.layers and found.element is not None
        element = found.element
        expected = found.case[0].feed(found.feeds[0])[element.output][element.index]
        actual = Pipeline(found.stage).run(found.case)[0].feed(found.feeds[0])[element.output][element.index]
        np.testing.assert_array_equal([expected, actual], [element.expected, element.actual])
        assert expected != actual
    assert bisect(found.case, found.stage, found.feeds).fault is None, "the pass itself is right"
