"""The table of operations."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hbir.torch.operations import Kind, lookup, operations
from hbir.torch.operations.registry import operation, properties, spellings


def test_every_operation_says_what_it_does() -> None:
    for name, entry in operations().items():
        assert entry.name == name and entry.spellings
        assert entry.function.__doc__, name


def test_spellings_find_functions_methods_and_in_place() -> None:
    assert set(spellings("relu")) == {F.relu, F.relu_, torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_}
    for spelled in (F.relu, torch.relu_, torch.Tensor.relu):
        found = lookup(spelled)
        assert found is not None and (found.name, found.kind) == ("relu", Kind.COMPUTE)
    assert lookup(*properties("T")) is operations()["turn"]
    assert lookup(torch.lgamma) is None


def test_a_spelling_has_one_meaning() -> None:
    def relu_again(e: object) -> None: ...

    with pytest.raises(ValueError, match="relu already"):
        operation(Kind.COMPUTE, F.relu)(relu_again)
    relu_again.__name__ = "relu"
    with pytest.raises(ValueError, match="registered twice"):
        operation(Kind.COMPUTE, torch.lgamma)(relu_again)
