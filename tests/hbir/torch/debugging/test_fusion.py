"""Shared modules, and what could not be fused."""

from __future__ import annotations

import torch
from torch import nn

from hbir.torch.debugging.fusion import check_unfused_operations, get_module_called_count
from hbir.torch.preparing.fuse import fuse_modules
from hbir.torch.preparing.prepare import PrepareMethod
from hbir.torch.stubs import DeQuantStub, QuantStub
from tests.hbir.torch.debugging.models import Chain, Fragile, calibrated, chain, images


def test_runs_are_counted() -> None:
    counts = {row.name: row.count for row in get_module_called_count(Fragile(), images())}
    assert counts.pop("twice") == 2 and counts.pop("unused") == 0 and set(counts.values()) == {1}
    prepared = get_module_called_count(calibrated(Fragile()), images())
    assert [row.name for row in prepared if row.shared] == ["twice"]
    assert not any("activation_post_process" in row.name for row in prepared)


def test_float_functional_is_counted() -> None:
    class Sums(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quant, self.dequant, self.add = QuantStub(), DeQuantStub(), torch.ao.nn.quantized.FloatFunctional()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.quant(x)
            return self.dequant(self.add.add(self.add.add(x, x), x))

    counts = {row.name: row.count for row in get_module_called_count(Sums(), images())}
    assert counts["add"] == 2


def test_what_is_not_fused_says_why() -> None:
    for model in (Fragile(), calibrated(Fragile())):
        rows = {(row.layer, row.operation): row.reason for row in check_unfused_operations(model, images())}
        assert set(rows) == {("stem", "norm"), ("fork", "late")}
        assert "a relu stands between" in rows["stem", "norm"]
        assert "is read by 'sigmoid_0' too" in rows["fork", "late"]


def test_a_batch_norm_behind_a_shared_layer() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quant, self.dequant = QuantStub(), DeQuantStub()
            self.conv, self.bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.dequant(self.bn(self.conv(self.conv(self.quant(x)))))

    rows = check_unfused_operations(calibrated(Twice()), images())
    assert [(row.operation, row.kind) for row in rows] == [("bn", "batch_norm")]
    assert "'conv' runs 2 times" in rows[0].reason


def test_fused_is_not_reported(pair: tuple[Chain, nn.Module]) -> None:
    assert check_unfused_operations(pair[0], images()) == check_unfused_operations(pair[1], images()) == []


def test_eager_names_what_was_not_fused_by_hand() -> None:
    forgotten = check_unfused_operations(calibrated(chain(), method=PrepareMethod.EAGER), images())
    assert [(row.layer, row.operation) for row in forgotten] == [("conv1", "bn"), ("conv2", "act2")]
    assert all("fuse_modules" in row.reason for row in forgotten)
    fused = fuse_modules(chain(), [["conv1", "bn", "act"], ["conv2", "act2"]])
    assert check_unfused_operations(calibrated(fused, method=PrepareMethod.EAGER), images()) == []


def test_a_sum_that_repeats_an_operand() -> None:
    class Repeated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quant, self.dequant, self.conv = QuantStub(), DeQuantStub(), nn.Conv2d(3, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.quant(x)
            return self.dequant(self.conv(x) + x.mean((2, 3), keepdim=True))

    (row,) = check_unfused_operations(calibrated(Repeated()), images())
    assert row.kind == "add" and "(2, 3, 6, 6) and (2, 3, 1, 1)" in row.reason
