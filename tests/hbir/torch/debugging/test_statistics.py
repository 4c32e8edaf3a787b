"""Statistics of layers: numbers by hand, and the layer with the huge range first."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hbir.torch.debugging.recording import ready, record
from hbir.torch.debugging.statistics import clipped_share, errors_of_grid, profile_featuremap, statistics_tables
from hbir.torch.fake_quant.fake_quantize import FakeQuantize
from tests.hbir.torch.debugging.models import Chain, images, wide_chain


def test_numbers(pair: tuple[Chain, nn.Module]) -> None:
    rows = {(row.name, row.part): row for row in profile_featuremap(pair[1], images())}
    value = record(pair[1], images()).features["conv2"].before
    row = rows["conv2", "output"]
    assert (row.minimum, row.maximum) == (float(value.min()), float(value.max()))
    assert row.mean == pytest.approx(float(value.double().mean()))
    assert row.variance == pytest.approx(float(value.double().var(correction=0)))
    assert row.dtype == "float" and row.saturated is None
    assert rows["act", "output"].dtype == rows["conv2", "input 0"].dtype == "qint8"
    assert rows["conv2", "weight"].shape == (8, 8, 3, 3)
    assert ("quant", "weight") not in rows


def test_saturation_by_hand() -> None:
    fake = FakeQuantize(scale=0.5)
    x = torch.tensor([0.2, 63.5, 63.74, 63.76, -64.0, -64.3, 100.0, 0.0])
    assert clipped_share(x, fake) == 3 / 8
    clipping, rounding = errors_of_grid(x, fake)
    held = torch.tensor([0.0, 63.5, 63.5, 63.5, -64.0, -64.0, 63.5, 0.0])
    squares = (x.double() - held.double()).square()
    assert clipping == pytest.approx(float(squares[[3, 5, 6]].sum()))
    assert rounding == pytest.approx(float(squares[[0, 1, 2, 4, 7]].sum()))


def test_the_huge_layer_is_first_by_range() -> None:
    model = wide_chain()
    order, by_range = statistics_tables(profile_featuremap(model, images()), "s")
    names = [row[0] for row in order.rows if row[2] == "output"]
    assert names == list(record(ready(model), images()).features)
    assert by_range.rows[0][0] == "conv2"
    ranges = [row[order.columns.index("range")] for row in by_range.rows]
    assert ranges == sorted(ranges, reverse=True) and ranges[0] > 50 * ranges[4]
