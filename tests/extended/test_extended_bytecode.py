"""Bytecode of two thousand generated modules, in both directions against tosa-opt."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from hbir.module import Module
from hbir.testing import modules
from tests.mlir_tools import check_both_directions, joined

TOGETHER = 40


@settings(
    max_examples=2000 // TOGETHER, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)
@given(parts=st.lists(modules(("hbir", "qat", "quantized"), 6), min_size=TOGETHER, max_size=TOGETHER))
def test_generated_modules(tmp_path_factory: pytest.TempPathFactory, parts: list[Module]) -> None:
    check_both_directions(joined(parts), tmp_path_factory.mktemp("m"))
