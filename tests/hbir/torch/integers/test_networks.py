"""Whole networks of integers: the evaluator and the interpreter agree in every bit of every output."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hbir.torch.integers import Evaluator
from tests.compiled import integer_module, qdq_module
from tests.networks import evaluation


@pytest.mark.parametrize("variant", [None, "uint8_weights", "int16_symmetric"])
def test_mnist(variant: str | None) -> None:
    function = (integer_module("mnist", samples=5) if variant is None else qdq_module("mnist", variant))[0]
    evaluator = Evaluator(function)
    for feed in evaluation("mnist", 5).inputs:
        expected = function.feed(feed)
        run = evaluator.start()
        for argument in function.flatten_inputs:
            run.enter(argument.index, torch.from_numpy(feed[argument.name]))
        for argument in function.flatten_outputs:
            np.testing.assert_array_equal(run.leave(argument.index).numpy(), expected[argument.name], strict=True)
