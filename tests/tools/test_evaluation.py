"""Comparing a binary with the float network: the measures, and the refusal of a binary that computes something else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from hbir.errors import CalibrationError, SimulationError
from hbir.frontends.onnx import export
from hbir.module import Function
from tests.tools.small import SHAPE, build_model
from tools.evaluation import cosine, evaluate

Feed = dict[str, npt.NDArray[Any]]


class Shifted:
    """A stand-in binary: a function's outputs, all moved by `by`."""

    def __init__(self, function: Function, by: float = 0.0) -> None:
        self.function, self.by = function, by

    def feed(self, inputs: Mapping[str, npt.NDArray[Any]], /) -> Feed:
        return {
            name: (value + np.float32(self.by)).astype(np.float32) for name, value in self.function.feed(inputs).items()
        }


@pytest.fixture(name="function")
def float_function(tmp_path: Path) -> Function:
    return export(build_model(tmp_path / "m.onnx"))[0]


def feeds(count: int) -> list[Feed]:
    random = np.random.default_rng(0)
    return [{"x": random.normal(0, 1, SHAPE).astype(np.float32)} for _ in range(count)]


def test_cosine() -> None:
    a = np.array([3.0, 4.0])
    assert cosine(a, a) == pytest.approx(1, abs=1e-15)
    assert cosine(a, -a) == pytest.approx(-1, abs=1e-15)
    assert cosine(a, np.array([-4.0, 3.0])) == 0
    assert cosine(np.zeros(2), np.zeros(2)) == 1 and cosine(a, np.zeros(2)) == 0


def test_an_equal_binary_is_perfect(function: Function) -> None:
    samples = feeds(5)
    labels = [int(np.argmax(function.feed(feed)["y"])) for feed in samples]
    labels[0] = (labels[0] + 1) % 4
    seen: list[float] = []
    result = evaluate(
        Shifted(function), function, function, samples, source="evaluation", total=5, labels=labels, advance=seen.append
    )
    (agreement,) = result.agreements
    assert agreement.max_error == 0 and agreement.worst_cosine == pytest.approx(1, abs=1e-12)
    assert result.accuracy is not None
    assert (result.accuracy.samples, result.accuracy.float_correct, result.accuracy.binary_correct) == (5, 4, 4)
    assert seen == [0.2, 0.4, 0.6, 0.8, 1.0]


def test_a_binary_that_differs_from_its_module_is_refused(function: Function) -> None:
    with pytest.raises(SimulationError, match="HB0740.*4 of 4 values"):
        evaluate(Shifted(function, 0.5), function, function, feeds(1), source="evaluation", total=1)


def test_labels_must_be_classes(function: Function) -> None:
    with pytest.raises(CalibrationError, match="HB0427"):
        evaluate(Shifted(function), function, function, feeds(1), source="evaluation", total=1, labels=[4])


def test_without_a_float_model_only_the_binary_is_judged(function: Function) -> None:
    result = evaluate(Shifted(function), function, None, feeds(2), source="evaluation", total=2, labels=[0, 0])
    assert result.agreements == () and result.accuracy is not None and result.accuracy.float_correct is None
