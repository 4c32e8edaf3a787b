"""Replays what a Markdown page tells a reader to run: its Python blocks and console lines, in one folder, in order."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

__all__ = ["ROOT", "code_blocks", "replay"]

ROOT = Path(__file__).resolve().parents[1]


def code_blocks(page: Path) -> list[tuple[str, str]]:
    """(language, text) of every fenced block of a page, in order."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def replay(blocks: list[tuple[str, str]], folder: Path, path: tuple[Path, ...] = ()) -> None:
    """Run `python` blocks whole and `console` lines that start with "$ "; `path` is added to the search path of modules.

    Each must succeed. A command that does not write a file with -o must say something.
    """
    for kind, text in blocks:
        if kind == "python":
            _run([sys.executable, "-c", text], folder, path)
        elif kind == "console":
            for line in text.splitlines():
                if line.startswith("$ "):
                    printed = _console(line.removeprefix("$ "), folder, path)
                    assert printed.strip() or " -o " in line, line


def _run(command: list[str], folder: Path, path: tuple[Path, ...]) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT)))}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def _console(line: str, folder: Path, path: tuple[Path, ...]) -> str:
    """Run a command of the project as its entry point names it, installed or not."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    name, *arguments = shlex.split(line)
    module, function = scripts[name].split(":")
    start = f"import sys; sys.argv[0] = {name!r}; from {module} import {function}; sys.exit({function}())"
    return _run([sys.executable, "-c", start, *arguments], folder, path)
