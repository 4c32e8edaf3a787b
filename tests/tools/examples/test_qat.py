"""The examples of quantisation-aware training: their data, all stages on pictures that a rule draws, and two processes."""

from __future__ import annotations

import gzip
import os
import pickle
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from hbir.errors import ConfigError
from hbir.module import load
from hbir.torch.quantization import FakeQuantState, set_fake_quantize
from tools.examples.qat import data, example_net, fx_mode, mobilenet, small_model, yolov3
from tools.examples.qat.common import HbirModule, Processes, Scores, evaluate
from tools.examples.qat.mobilenet import MobileNetV2, load_pretrain

ROOT = Path(__file__).parents[3]
CPU = torch.device("cpu")


def drawn(count: int, seed: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Grey pictures with a bright bar in one of ten rows, on noise: the row is the class."""
    random = np.random.default_rng(seed)
    labels = (np.arange(count) % 10).astype(np.uint8)
    images = random.integers(0, 60, (count, 28, 28), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2 * label + 4 : 2 * label + 7] += 180
    return images, labels


def write_fashion_mnist(folder: Path, train: int = 96, test: int = 20) -> Path:
    folder.mkdir()
    for kind, count, seed in (("train", train, 0), ("t10k", test, 1)):
        for name, array in zip(("images-idx3", "labels-idx1"), drawn(count, seed), strict=True):
            head = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
            (folder / f"{kind}-{name}-ubyte.gz").write_bytes(gzip.compress(head + array.tobytes(), 1))
    return folder


def write_cifar10(folder: Path) -> Path:
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number, name in enumerate((*(f"data_batch_{n}" for n in range(1, 6)), "test_batch")):
        rows = random.integers(0, 256, (4, 3072), dtype=np.uint8)
        rows[:, 0] = number
        found = {b"data": rows, b"labels": [number, 1, 2, 3], b"batch_label": name.encode()}
        (folder / name).write_bytes(pickle.dumps(found, protocol=2))
    return folder


def test_cifar10_is_taken_where_its_folder_is_given(tmp_path: Path) -> None:
    folder = write_cifar10(tmp_path / "data" / data.CIFAR10)
    for given in (tmp_path / "data", folder):
        name, train, test = data.load_pictures(given)
        assert (name, len(train), len(test)) == ("CIFAR-10", 20, 4)
        assert train.images.shape == (20, 3, 32, 32) and train.images[::4, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
        assert test.labels.tolist() == [5, 1, 2, 3]


def test_a_pickle_that_would_run_something_is_refused(tmp_path: Path) -> None:
    folder = write_cifar10(tmp_path / data.CIFAR10)
    (folder / "test_batch").write_bytes(pickle.dumps({b"data": os.getcwd, b"labels": []}))
    with pytest.raises(ConfigError, match=r"HB0893.*getcwd"):
        data.load_pictures(folder)


def test_fashion_mnist_and_its_absence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_fashion_mnist(tmp_path / "f")
    name, train, test = data.load_pictures(folder)
    assert (name, len(train), len(test)) == ("Fashion-MNIST", 96, 20)
    assert train.images.shape == (96, 1, 32, 32) and int(train.images[:, :, :2].max()) == 0
    images = drawn(96, 0)[0]
    assert (train.images[5, 0, 2:30, 2:30].numpy() == images[5]).all()

    monkeypatch.setattr(data, "FASHION_MNIST", tmp_path / "none")
    with pytest.raises(ConfigError, match="apt-get install dataset-fashion-mnist"):
        data.load_pictures(tmp_path)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(b"no archive")
    with pytest.raises(ConfigError, match="HB0893"):
        data.load_pictures(folder)


def test_batches_are_on_the_grid_and_shared_among_processes(tmp_path: Path) -> None:
    train = data.load_pictures(write_fashion_mnist(tmp_path / "f"))[1]
    first, held_out = data.split(train)
    assert (len(first), len(held_out)) == (88, 8)
    plain = list(data.batches(train, 40, CPU))
    assert [len(labels) for _, labels in plain] == [40, 40, 16]
    assert plain[0][0].shape == (40, 3, 32, 32) and (plain[0][0] * 128 == (plain[0][0] * 128).round()).all()
    assert (plain[0][0][:, 1] * 128 + 128 == train.images[:40, 0]).all()

    shares = [list(data.batches(train, 20, CPU, seed=3, rank=rank, ranks=2)) for rank in range(2)]
    assert [[len(labels) for _, labels in share] for share in shares] == [[20, 20], [20, 20]]
    again = list(data.batches(train, 20, CPU, seed=3, rank=0, ranks=2))
    assert all((one[0] == two[0]).all() for one, two in zip(shares[0], again, strict=True))
    ends = [list(data.batches(train.part(0, 7), 9, CPU, rank=rank, ranks=2)) for rank in range(2)]
    assert [len(labels) for share in ends for _, labels in share] == [3, 4]


def test_training_moves_and_mirrors_pictures() -> None:
    images = torch.zeros(64, 1, 32, 32, dtype=torch.uint8)
    images[:, :, 16, 8] = 255
    rows, columns = data._moved(images, 2, torch.Generator().manual_seed(0)).nonzero()[:, 2:].T
    assert set(rows.tolist()) == {14, 15, 16, 17, 18}
    assert set(columns.tolist()) == {6, 7, 8, 9, 10, 21, 22, 23, 24, 25}


def test_scores() -> None:
    labels = torch.tensor([0, 1, 2])
    scores = Scores(torch.tensor([[3.0, 1, 0], [0, 1, 2], [0, 1, 2]]), labels)
    assert scores.accuracy() == pytest.approx(200 / 3) and scores.accuracy(5) == 100
    assert scores.same(Scores(scores.values[:2] + torch.tensor([[0.0], [1]]), labels[:2])) == 1


def test_imagenet_weights_load_by_name(tmp_path: Path) -> None:
    weights = MobileNetV2(1000, 1.0).state_dict()
    # These are names of the published file.
    for name in (
        "features.0.0.weight",
        "features.1.conv.1.weight",
        "features.17.conv.3.running_var",
        "classifier.1.bias",
    ):
        assert name in weights
    assert len(weights) == 314
    torch.save(weights, tmp_path / "weights.pth")
    model = MobileNetV2(10, 1.0)
    load_pretrain(model, tmp_path / "weights.pth")
    assert (model.state_dict()["features.18.0.weight"] == weights["features.18.0.weight"]).all()
    with pytest.raises(ConfigError, match=r"HB0895.*--width 1"):
        load_pretrain(MobileNetV2(10, 0.5), tmp_path / "weights.pth")


SHORT = ((1, 8, 1, 1), (3, 8, 2, 2))
FEW = ["--width", "0.25", "--train-batch-size", "16", "--eval-batch-size", "8", "--device-id", "-1"]


def test_all_stages(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mobilenet, "_STAGES", SHORT)
    folder, model_path = write_fashion_mnist(tmp_path / "f"), tmp_path / "model"
    options = ["--data-path", str(folder), "--model-path", str(model_path), *FEW, "--epoch-num", "8"]
    assert fx_mode.main(["--stage", "calib", *options]) == 1
    assert "run --stage float first" in capsys.readouterr().err
    assert fx_mode.main([*options, "--binary-pictures", "5"]) == 0
    rows = {
        line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if " Acc" not in line and line
    }
    assert rows["integers"][-3:] == ["20", "of", "20"] and rows["binary"][-3:] == ["5", "of", "5"]
    assert rows["qat"][1:] == rows["integers"][1:4]
    assert {path.name for path in model_path.iterdir()} == {
        *(f"{stage}-checkpoint.ckpt" for stage in ("float", "calib", "qat")),
        *("qat_hbir_model.bc", "quantized_hbir_model.bc", "quantized_hbir_model.onnx", "model.hbm", "perf"),
    }
    assert fx_mode.main(["--stage", "int_infer", *options]) == 0

    # The file holds single pictures; what is evaluated takes batches of eight, of which the last is smaller.
    args = fx_mode.get_args(options)
    test = data.load_pictures(folder)[2]
    job = fx_mode.Job(args, test, test, test, CPU, Processes())
    model = fx_mode.get_model_fx("int_infer", job)
    single = evaluate(HbirModule(load(model_path / "quantized_hbir_model.bc")), test, 20, CPU)
    assert single.same(fx_mode.int_infer(model, job)) == 20
    set_fake_quantize(model, FakeQuantState.VALIDATION)
    assert single.same(evaluate(model.eval(), test, 8, CPU)) == 20


def test_the_smaller_examples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert small_model.main(["--folder", str(tmp_path)]) == 0
    lines = dict(line.split(" on ") for line in capsys.readouterr().out.splitlines())
    assert lines["quantized_single"].startswith("nash-m: linear2 i8, linear3 i32;")
    assert lines["quantized"].startswith("nash-m: linear2 i32, linear3 i32; {'rescale': 2, 'quantize': 1}")
    assert lines["float_outputs"].startswith("nash-h: linear2 f32, linear3 f32;")
    assert lines["integer_conv"].startswith("nash-h: linear2 i32, linear3 i32;")

    assert example_net.main(["--hbm", str(tmp_path / "e.hbm")]) == 0
    assert "576 of 576 values" in capsys.readouterr().out
    options = ["--size", "32", "--width", "2", "--steps", "2"]
    assert yolov3.main(["--hbm", str(tmp_path / "y.hbm"), *options]) == 0
    assert "504 of 504 values" in capsys.readouterr().out
