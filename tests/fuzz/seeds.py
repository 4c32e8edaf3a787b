"""What fuzzing starts from: small valid files of every kind, made from the generators and models of the tests.

`python -m tests.fuzz.seeds READER FOLDER` writes them; the same files every time.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

__all__ = ["SEEDS", "WEIGHTS", "WEIGHTS_TEXT", "write_seeds"]

WEIGHTS = (bytes(range(16)), bytes(12))
"""The constants of the module that the reader of constants loads: four int32, and three float32."""

_DIGESTS = tuple(hashlib.sha256(data).hexdigest() for data in WEIGHTS)

WEIGHTS_TEXT = f"""\
"builtin.module"() ({{
  "func.func"() <{{function_type = () -> (tensor<4xi32>, tensor<3xf32>), sym_name = "main"}}> ({{
    %0 = "hbir.constant"() {{value = #hbir.blob<"{_DIGESTS[0]}", 16>}} : () -> tensor<4xi32>
    %1 = "hbir.constant"() {{value = #hbir.blob<"{_DIGESTS[1]}", 12>}} : () -> tensor<3xf32>
    "func.return"(%0, %1) : (tensor<4xi32>, tensor<3xf32>) -> ()
  }}) : () -> ()
}}) : () -> ()
"""
"""Its text."""

_CONFIGS = (
    (
        "model_parameters:\n  onnx_model: m.onnx\n  march: nash-e\n"
        "input_parameters:\n  input_type_rt: featuremap\n  input_type_train: featuremap\n"
    ),
    (
        "model_parameters: {onnx_model: m.onnx, march: nash-m, working_dir: ./o, output_model_file_prefix: p, log_level: d}\n"
        "input_parameters:\n  input_name: a;b\n  input_type_rt: rgb;featuremap\n  input_type_train: bgr;featuremap\n"
        "  input_layout_train: NHWC;NCHW\n  input_shape: 1x8x8x3;2x5\n  mean_value: 1 2 3;\n  std_value: 58.4 57.1 57.4;\n"
        "calibration_parameters:\n  cal_data_dir: [d, e]\n  calibration_type: max\n  max_percentile: 0.9999\n"
        "  optimization: set_model_output_int16\n"
        "  quant_config: {model_config: {all_node_type: int16, model_output_type: int8, "
        "activation: {calibration_type: [kl], max_percentile: 0.99, asymmetric: true}}}\n"
        "compiler_parameters:\n  compile_mode: balance\n  balance_factor: 50\n  optimize_level: O1\n  core_num: 2\n"
        "  max_l2m_size: 25_165_824\n  debug: off\n  advice: 1e3\n  jobs: 0x10\n  input_source: {a: ddr}\n"
        "evaluation_parameters:\n  eval_data_dir: e\n  labels: l.txt\n"
    ),
    (
        "%YAML 1.1\n---\nmodel_parameters: &m\n  onnx_model: !!str m\n  march: 'nash-e'\n  <<: {debug_mode: ~}\n"
        "input_parameters:\n  ? input_type_rt\n  : >-\n    gray\n  input_type_train: |-\n    gray\n"
        '  input_layout_train: "NC\\x48W"\n'
        "  scale_value: 0.017\n  norm_type: *m\ncustom_op:\n  custom_op_dir: 2001-01-01\n...\n"
    ),
    "model_parameters:\n  output_nodes: &a [x, 1:30, .inf, 0b1, !!set {a}]\n  node_info: *a\n  caffe_model: !!binary aGk=\n",
    "calibration_parameters:\n  quant_config: q.json\n  run_on_cpu: [[a, [b]], {c: d}]\n",
)


@cache
def _generated() -> list[object]:
    """One module for each operation class, and a few of several operations."""
    from hypothesis import HealthCheck, Phase, given, settings

    from hbir.testing import GENERATORS, modules, operations

    once = settings(
        max_examples=2, database=None, derandomize=True, phases=[Phase.generate], deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip

    def example(strategy: SearchStrategy[object]) -> object:
        made: list[object] = []

        @once
        @given(strategy)
        def collect(module: object) -> None:
            made.append(module)

        collect()
        return made[-1]

    mixed = (modules((name,), 4) for name in ("hbir", "qat", "quantized"))
    return [example(strategy) for strategy in (*map(operations, GENERATORS), *mixed)]


def _modules(suffix: str) -> Iterator[bytes]:
    from hbir import save

    with TemporaryDirectory() as folder:
        for module in _generated():
            path = Path(folder) / f"a{suffix}"
            save(module, path)  # pyright: ignore[reportArgumentType]
            yield path.read_bytes()


def _mlir() -> Iterator[bytes]:
    yield WEIGHTS_TEXT.encode()
    yield from _modules(".mlir")


def _bc() -> Iterator[bytes]:
    yield from _modules(".bc")


def _weights() -> Iterator[bytes]:
    from hbir.ir.weights import weights_pieces

    yield b"".join(weights_pieces(dict(zip(_DIGESTS, map(memoryview, WEIGHTS), strict=True))))
    yield b"".join(weights_pieces({}))


def _onnx() -> Iterator[bytes]:
    from onnx import ModelProto

    from hbir.frontends.onnx import supported_operators
    from tests.hbir.frontends.onnx.models import IMAGE, text_model
    from tests.hbir.frontends.onnx.test_hostile import BODIES, small_model

    yield from map(small_model, BODIES)
    constants = {"w": [[[[1.0]]] * 3], "s": [1, 3, 64], "f": 0.5, "z": 0}
    for name in supported_operators():
        domain, _, operator = name.rpartition("::")
        for operands in (["x"], ["x", "x"], ["x", "w"], ["x", "s"], ["x", "f", "z"]):
            model: ModelProto = text_model("y = Relu (x)", IMAGE, domains=', "com.microsoft" : 1', constants=constants)
            model.graph.node[0].op_type, model.graph.node[0].domain = operator, domain
            model.graph.node[0].input[:] = operands
            yield model.SerializeToString()


def _hbm() -> Iterator[bytes]:
    import numpy as np

    from backends.nash.hbm import HostSegment, Model, write
    from tests.backends.nash.samples import ConvLayer, pool_model, tiled_conv_model

    data = b"weights of the host"
    pool = pool_model()
    host = replace(pool, host=HostSegment("module {}", {hashlib.sha256(data).hexdigest(): memoryview(data)}))
    rng = np.random.default_rng(0)
    conv = tiled_conv_model([ConvLayer.random(rng, 8, 3, 8), ConvLayer.random(rng, 4, 1, 8)], 12, 10, 4)

    def written(*models: Model) -> bytes:
        with TemporaryDirectory() as folder:
            write(models, Path(folder) / "a.hbm")
            return (Path(folder) / "a.hbm").read_bytes()

    yield written(pool)
    yield written(host)
    yield written(conv)
    yield written(replace(pool, name="other"), host)
    yield from map(written, _compiled())


def _compiled() -> Iterator[object]:
    """Small modules of integers, compiled: one for each operation class that compiles by itself."""
    from backends import compile as compiled
    from hbir.errors import HbError
    from passes import convert

    with TemporaryDirectory() as folder:
        for module in _generated():
            try:
                integers = convert(module, "nash-e")  # pyright: ignore[reportArgumentType]
                binary = compiled(integers, Path(folder) / "a.hbm", "nash-e", 0)
            except HbError:
                continue  # not every generated module is one that can be compiled
            if (Path(folder) / "a.hbm").stat().st_size <= 16384:
                yield from binary.models


def _yaml() -> Iterator[bytes]:
    yield from (text.encode() for text in _CONFIGS)


def _toml() -> Iterator[bytes]:
    from hbir.march import MARCHES

    for name in MARCHES:
        yield f'base = "{name}"\nname = "mine"\n'.encode()
    yield (
        b'base = "nash-m"\ncores = { value = 2, source = "s", confidence = "invented" }\n'
        b'clock_hz = { value = 1e9, source = """s""", confidence = "measured" }\n'
        b"[vector_types]\nvalue = ['int8', \"int16\"]\nsource = 'u\\u00e9'\nconfidence = \"inferred\"\n"
    )
    yield b"name = 'x'\n[[a.b]]\nc = 0x1F\nd = [1979-05-27T07:32:00Z, 07:32:00, inf, -nan, 1_0.5e-3]\n[a.\"q\"]\nt = true\n"


SEEDS: dict[str, Callable[[], Iterator[bytes]]] = {
    "onnx": _onnx, "mlir": _mlir, "bc": _bc, "weights": _weights, "hbm": _hbm, "yaml": _yaml, "toml": _toml,
}  # fmt: skip
"""The seeds of each reader."""


def write_seeds(name: str, folder: Path) -> None:
    """The seeds of a reader as files, named by their content."""
    folder.mkdir(parents=True, exist_ok=True)
    for data in SEEDS[name]():
        (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


if __name__ == "__main__":
    write_seeds(sys.argv[1], Path(sys.argv[2]))
