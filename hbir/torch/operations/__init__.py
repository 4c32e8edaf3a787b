"""The operations of the quantised region, one file for each family. Importing this package registers all of them."""

from __future__ import annotations

from importlib import import_module

from hbir.torch.operations.registry import Kind, Operation, lookup, operations

__all__ = ["Kind", "Operation", "lookup", "operations"]

for _family in (
    *("activations", "attention", "elementwise", "identity", "indexing", "layers", "movement", "normalization"),
    *("pooling", "recurrent", "reductions", "resampling"),
):
    import_module(f"{__name__}.{_family}")
