"""Networks and data that come from npm and Debian: run with `pytest tests/extended`, never in the standard suite."""

from __future__ import annotations

import numpy as np

from tests.networks import calibration_feeds, evaluation, fashion_mnist, mnist_test_set, network, run
from tests.quantized_networks import quantized_network


def test_mnist_test_set() -> None:
    data = mnist_test_set()
    assert data.labels is not None
    found = np.array([outputs["Plus214_Output_0"].argmax() for outputs in run(network("mnist"), data.inputs)])
    assert (found == data.labels).sum() == 9891


def test_blazeface_finds_the_faces() -> None:
    faces = evaluation("blazeface").inputs[:9]
    others = [feed for index, feed in enumerate(calibration_feeds("blazeface", 14)) if index % 7 in (2, 4, 5)]
    # The larger of the two score outputs, before the sigmoid.
    scores = [
        [
            max(outputs["Identity:0"].max(), outputs["Identity_1:0"].max())
            for outputs in run(network("blazeface"), feeds)
        ]
        for feeds in (faces, others)
    ]
    assert min(scores[0]) > 1.0
    assert max(scores[1]) < min(scores[0])


def test_blazeface_quantizes() -> None:
    feeds = evaluation("blazeface", 2).inputs
    for outputs in run(quantized_network("blazeface", "uint8"), feeds):
        assert {name: value.shape for name, value in outputs.items()} == {
            "Identity:0": (1, 512, 1),
            "Identity_1:0": (1, 384, 1),
            "Identity_2:0": (1, 512, 16),
            "Identity_3:0": (1, 384, 16),
        }


def test_fashion_mnist() -> None:
    images, labels = fashion_mnist()
    assert images.shape == (10_000, 28, 28)
    assert np.bincount(labels).tolist() == [1000] * 10
