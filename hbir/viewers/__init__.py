"""Modules in the viewers that people have: an ONNX file for Netron, graph JSON with overlays by layer for Model Explorer."""

from __future__ import annotations

from hbir.viewers.model_explorer import graph_collection, node_data, save_model_explorer
from hbir.viewers.onnx_graph import visualize
from hbir.viewers.readable import readable_type

__all__ = ["graph_collection", "node_data", "readable_type", "save_model_explorer", "visualize"]
