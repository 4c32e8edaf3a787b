"""The README's tour, replayed: every Python block and every console line, in one folder, in order."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def _run(command: list[str], folder: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def _console(line: str, folder: Path) -> str:
    """Run a command of the project as its entry point names it, installed or not."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    name, *arguments = shlex.split(line)
    module, function = scripts[name].split(":")
    start = f"import sys; sys.argv[0] = {name!r}; from {module} import {function}; sys.exit({function}())"
    return _run([sys.executable, "-c", start, *arguments], folder)


def test_tour(tmp_path: Path) -> None:
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    kinds: list[str] = []
    for kind, text in BLOCKS:
        kinds.append(kind)
        if kind == "python":
            _run([sys.executable, "-c", text], tmp_path)
        elif kind == "console":
            for line in text.splitlines():
                if line.startswith("$ "):
                    printed = _console(line.removeprefix("$ "), tmp_path)
                    # A command that writes a file may be silent about it.
                    assert printed.strip() or " -o " in line
    assert kinds.count("python") >= 2 and kinds.count("console") >= 1
    assert {"tiny.hbm", "tiny.mlir", "tiny.weights", "tiny_folded.mlir"} <= {p.name for p in tmp_path.iterdir()}


def test_first_two_blocks_are_the_commands() -> None:
    (kind, first), (other, second) = BLOCKS[:2]
    assert (kind, other) == ("bash", "bash")
    assert first.startswith("pip install ") and "&& hb_compile " in first and first.count("\n") == 1
    assert second.startswith("pip install ") and "pytest" in second and second.count("\n") == 1
