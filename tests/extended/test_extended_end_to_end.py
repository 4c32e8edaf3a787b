"""The road to simulated numbers for what npm brings: BlazeFace on every march, and MNIST's accuracy on all 10,000 digits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from tests.compiled import MARCHES, assert_equal_outputs, compiled, integer_module, qdq_module
from tests.networks import Evaluation, evaluation, mnist_test_set, network, run
from tests.reporting import Figures

Floats = npt.NDArray[np.float32]


@pytest.mark.parametrize("march", MARCHES)
def test_blazeface_gives_the_interpreters_numbers(march: str) -> None:
    module = integer_module("blazeface", march)
    binary = compiled(module, opt=1)
    feeds = evaluation("blazeface", 2).inputs
    assert_equal_outputs(module, binary, feeds)
    assert_equal_outputs(module, binary, feeds[:1], check=True)


def test_blazeface_on_several_cores_gives_the_same_numbers() -> None:
    module = integer_module("blazeface", "nash-h")
    binary = compiled(module, opt=2, core_num=3, max_l2m_size=None)
    assert_equal_outputs(module, binary, evaluation("blazeface", 1).inputs, check=True)


@pytest.mark.parametrize("variant", ["int8", "uint8", "per_channel"])
def test_quantized_blazeface_gives_the_interpreters_numbers(variant: str) -> None:
    module = qdq_module("blazeface", variant)
    assert_equal_outputs(module, compiled(module, opt=1), evaluation("blazeface", 2).inputs)


def best_face(outputs: dict[str, Floats]) -> tuple[float, int]:
    """The highest score before the sigmoid, and its anchor among both score outputs."""
    scores = np.concatenate([outputs["Identity:0"].ravel(), outputs["Identity_1:0"].ravel()])
    return float(scores.max()), int(scores.argmax())


def test_blazeface_finds_the_faces(figures: Figures) -> None:
    data: Evaluation = evaluation("blazeface", 9)
    function = compiled(integer_module("blazeface"), opt=1)[0]
    pairs = [
        (best_face(floating), best_face(function.feed(feed)))
        for feed, floating in zip(data.inputs, run(network("blazeface"), data.inputs), strict=True)
    ]
    gaps = [abs(floating[0] - integer[0]) for floating, integer in pairs]
    figures(
        f"blazeface: best scores (before the sigmoid) of {len(pairs)} pictures differ from float by at most {max(gaps):.2f}"
    )
    for (floating, _), (integer, _) in pairs:
        # Above 0 the sigmoid says "a face"; what float is sure of, int8 sees too.
        assert integer > 0 or floating < 1
    assert max(gaps) < 1


def test_mnist_on_the_whole_test_set(figures: Figures) -> None:
    data = mnist_test_set()
    assert data.labels is not None
    function = compiled(integer_module("mnist"), opt=1)[0]
    found = np.array([function.feed(feed)["Plus214_Output_0"].argmax() for feed in data.inputs])
    correct = int((found == data.labels).sum())
    figures(f"mnist: {correct} of 10000 digits of the test set, float 9891")
    assert correct >= 9880
