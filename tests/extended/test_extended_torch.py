"""Six hundred drawn PyTorch models: the same bits from PyTorch, the interpreter and the simulator of the decoded binary."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hbir.torch.exactness import three_implementations_agree
from tests.reporting import Figures

EXAMPLES = 300
"""For each width."""


@pytest.mark.parametrize("bits", [8, 16])
def test_three_implementations_agree(bits: int, tmp_path: Path, figures: Figures) -> None:
    three_implementations_agree(bits, EXAMPLES, tmp_path / "model.hbm", figures)
