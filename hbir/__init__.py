"""An open compiler for quantised neural networks: the language, its meaning, its readers and writers."""

from hbir.errors import HbError
from hbir.frontends.onnx import export
from hbir.module import Argument, Function, Module, load, save, statistics
from hbir.viewers import visualize

__all__ = ["Argument", "Function", "HbError", "Module", "export", "load", "save", "statistics", "visualize"]
