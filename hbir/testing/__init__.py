"""What tests need and users may reuse: hypothesis strategies for tensors and modules, checks on modules, and oracles.

Needs the packages of the extra `test`; nothing else in the project imports this room.
"""

from __future__ import annotations

from hbir.testing.checks import assert_round_trips, assert_same_semantics, example_feeds
from hbir.testing.modules import GENERATORS, modules, operations
from hbir.testing.values import quant_params, tensors

__all__ = [
    "GENERATORS",
    "assert_round_trips",
    "assert_same_semantics",
    "example_feeds",
    "modules",
    "operations",
    "quant_params",
    "tensors",
]
