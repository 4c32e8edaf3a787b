"""The README's tour, replayed: every Python block and every console line, in one folder, in order."""

from __future__ import annotations

from pathlib import Path

from tests.replaying import ROOT, code_blocks, replay

BLOCKS = code_blocks(ROOT / "README.md")


def test_tour(tmp_path: Path) -> None:
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    replay(BLOCKS, tmp_path)
    kinds = [kind for kind, _ in BLOCKS]
    assert kinds.count("python") >= 2 and kinds.count("console") >= 1
    assert {"tiny.hbm", "tiny.mlir", "tiny.weights", "tiny_folded.mlir"} <= {p.name for p in tmp_path.iterdir()}


def test_first_two_blocks_are_the_commands() -> None:
    (kind, first), (other, second) = BLOCKS[:2]
    assert (kind, other) == ("bash", "bash")
    assert first.startswith("pip install ") and "&& hb_compile " in first and first.count("\n") == 1
    assert second.startswith("pip install ") and "pytest" in second and second.count("\n") == 1
