"""A small network on disk with data and a configuration, for the tests of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

__all__ = ["SHAPE", "build_model", "configuration", "write_config", "write_samples"]

SHAPE = (1, 3, 16, 16)


def build_model(
    path: Path, *, shape: Sequence[int | str] = SHAPE, nan: bool = False, op: str = "Relu", domain: str = ""
) -> Path:
    """conv 3x3 (3 to 8 channels), `op`, global average pool, flatten, gemm to 4 classes; input "x", output "y"."""
    random = np.random.default_rng(0)
    weight = random.normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32)
    if nan:
        weight[1, 1, 1, 1] = np.nan
    head = random.normal(0, 1, (4, 8)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node(op, ["c"], ["r"], "act1", domain=domain),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], "pool1"),
        helper.make_node("Flatten", ["p"], ["f"], "flat1"),
        helper.make_node("Gemm", ["f", "h"], ["y"], "head", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(head, "h")],
    )
    imports = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    path.write_bytes(helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString())
    assert onnx.load(path).graph.name == "small"
    return path


def write_samples(
    folder: Path, count: int, *, seed: int = 0, shape: Sequence[int] = SHAPE, dtype: Any = np.float32
) -> Path:
    """`count` samples of normal noise (pixels for uint8) as 000.npy, 001.npy, …"""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for index in range(count):
        noise = random.integers(0, 256, shape) if dtype == np.uint8 else random.normal(0, 1, shape)
        np.save(folder / f"{index:03d}.npy", noise.astype(dtype))
    return folder


def configuration(folder: Path) -> dict[str, dict[str, Any]]:
    """A complete configuration for the model and data in `folder`, made on the way."""
    return {
        "model_parameters": {
            "onnx_model": str(build_model(folder / "small.onnx")),
            "march": "nash-e",
            "working_dir": str(folder / "out"),
            "output_model_file_prefix": "small",
        },
        "input_parameters": {"input_type_rt": "featuremap", "input_type_train": "featuremap"},
        "calibration_parameters": {"cal_data_dir": str(write_samples(folder / "cal", 4))},
        "compiler_parameters": {"optimize_level": "O1"},
    }


def write_config(path: Path, config: Any) -> Path:
    """The configuration as YAML."""
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path
