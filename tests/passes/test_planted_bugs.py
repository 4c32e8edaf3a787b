"""Faults planted in five passes: the strategies find each within 200 examples; `bisect` names pass, operation and element."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, find, settings

from hbir.errors import HbError
from hbir.module import Module
from hbir.testing import assert_same_semantics, example_feeds
from passes import Pipeline
from passes.debugging.bisect import bisect
from tests.passes.planted import FAULTS, Fault

EXAMPLES = 200
SEARCH = settings(
    max_examples=EXAMPLES,
    phases=[Phase.generate],  # what is found is cut down by `reduce`
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
PIPELINE = (
    "fold-constants,canonicalize,cancel-transposes,fold-batch-norm,fuse-conv-add-relu,fix-lut,fold-requantize,"
    "narrow-movement,merge-duplicates,dead-code"
)


def breaks(module: Module) -> bool:
    """Whether the pipeline makes other values of a module. Where it raises there is no element to be named."""
    try:
        changed = Pipeline(PIPELINE).run(module)
    except HbError:
        return False
    try:
        assert_same_semantics(module, changed, tolerance=1e-4)
    except AssertionError:
        return True
    return False


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.step)
def test_a_planted_fault_is_found_and_named(fault: Fault) -> None:
    tried: list[Module] = []

    def fails(module: Module) -> bool:
        tried.append(module)
        return breaks(module)

    with fault.planted():
        module = find(fault.examples, fails, settings=SEARCH)
        assert len(tried) <= EXAMPLES
        feeds = [example_feeds(module[0], seed) for seed in range(3)]
        found = bisect(module, PIPELINE, feeds, tolerance=0.0).fault
        assert found is not None and found.stage.partition("{")[0] == fault.step
        assert found.operation in (fault.operations or (found.operation,))
        assert len(found.layers) <= 3, "the case is a handful of operations"
        assert found.layer in found.layers and found.element is not None
        element = found.element
        expected = found.case[0].feed(found.feeds[0])[element.output][element.index]
        actual = Pipeline(found.stage).run(found.case)[0].feed(found.feeds[0])[element.output][element.index]
        np.testing.assert_array_equal([expected, actual], [element.expected, element.actual])
        assert expected != actual
    assert bisect(found.case, found.stage, found.feeds, tolerance=0.0).fault is None, "the pass itself is right"
