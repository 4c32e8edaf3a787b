"""What several commands read: a module in any of its files, or a network that becomes one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from hbir.module import Module

__all__ = ["input_shapes", "load_module"]


input_shapes = click.option(
    "-i",
    "--input-shape",
    "shapes",
    nargs=2,
    multiple=True,
    metavar="NAME SHAPE",
    help="Shape of a dynamic input of an ONNX model.",
)
"""The option of every command that takes `load_module`'s files: its `shapes`."""


def load_module(path: Path, shapes: tuple[tuple[str, str], ...] = ()) -> Module:
    """The module in a file: bytecode or text, or an ONNX network, whose inputs may need `shapes` (name, "1x3x224x224")."""
    from tools.console import read_file_kind
    from tools.job import MODEL_KINDS, parse_shape

    if read_file_kind(path, MODEL_KINDS) != ".onnx":
        from hbir.module import load

        return load(path)
    from hbir.frontends.onnx import export

    return export(path, input_shapes={name: parse_shape(shape, f"input '{name}'") for name, shape in shapes})
