"""Every pass on networks written by hand, one `.mlir` file a pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from passes import available_passes
from tests.passes.filecheck import run_file

FILES = sorted(Path(__file__).parent.glob("*.mlir"))


def test_every_pass_has_a_file() -> None:
    assert {path.stem.replace("_", "-") for path in FILES} == set(available_passes())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file(path: Path) -> None:
    run_file(path)
