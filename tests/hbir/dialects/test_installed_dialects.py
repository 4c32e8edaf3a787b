"""Dialects of installed packages: found through their entry points, refused when they are none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hbir.dialects import all_dialects, own_dialects
from hbir.errors import IrError


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    all_dialects.cache_clear()
    yield
    all_dialects.cache_clear()


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, *values: str) -> None:
    """A folder on the search path that claims to be an installed package with these dialects."""
    metadata = folder / "other-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1\n")
    lines = [f"name_{index} = {value}" for index, value in enumerate(values)]
    (metadata / "entry_points.txt").write_text("\n".join(["[hbir.dialects]", *lines]) + "\n")
    monkeypatch.syspath_prepend(str(folder))


def test_a_package_adds_a_dialect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert all_dialects() == own_dialects()
    all_dialects.cache_clear()
    (tmp_path / "other_operations.py").write_text("from xdsl.ir import Dialect\nOther = Dialect('other')\n")
    install(tmp_path, monkeypatch, "other_operations:Other")
    assert [dialect.name for dialect in all_dialects()] == [*(d.name for d in own_dialects()), "other"]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (("hbir.dialects.hbir:ConstantOp",), "it is a"),
        (("hbir.dialects.hbir:Nothing",), "Nothing"),
        (("no_such_package:Dialect",), "no_such_package"),
        (("hbir.dialects.hbir:Hbir",), "there is a dialect 'hbir' already"),
    ],
)
def test_what_is_no_further_dialect_is_refused(
    values: tuple[str, ...], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, *values)
    with pytest.raises(IrError, match=f"HB0244.*{reason}"):
        all_dialects()
