"""The tutorial: its code is that of the example's files, and everything it tells a reader to run does run."""

from __future__ import annotations

import tomllib
from pathlib import Path

from tests.replaying import ROOT, code_blocks, replay

EXAMPLE = ROOT / "tools" / "examples" / "own_pass_and_op"
BLOCKS = code_blocks(EXAMPLE / "README.md")
INSTALL = ("console", "$ pip install -e .\n")


def installed(folder: Path) -> Path:
    """What `pip install -e .` leaves beside the package: its metadata with the entry points that its file declares."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    metadata = folder / f"{project['name']}-{project['version']}.dist-info"
    metadata.mkdir(parents=True)
    name, version = project["name"], project["version"]
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in table.items())
             for group, table in project["entry-points"].items()]  # fmt: skip
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    return folder


def test_the_code_of_the_page_is_that_of_the_files() -> None:
    shown = {text.splitlines()[0].removeprefix("# "): text for _, text in BLOCKS if text.startswith("# ")}
    assert set(shown) == {"acme/star_relu.py", "acme/expand_star_relu.py", "pyproject.toml"}
    for name, text in shown.items():
        assert text.split("\n", 1)[1] == (EXAMPLE / name).read_text(encoding="utf-8"), name


def test_everything_runs(tmp_path: Path) -> None:
    assert INSTALL in BLOCKS
    blocks = [block for block in BLOCKS if block != INSTALL and not block[1].startswith("# ")]
    work = tmp_path / "work"
    work.mkdir()
    replay(blocks, work, (installed(tmp_path / "site"), EXAMPLE))
    assert {"star.onnx", "star.mlir", "star.hbm"} <= {path.name for path in work.iterdir()}
