"""An image input computes what preparing the picture outside would have given, in float and after quantisation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hbir.errors import ConfigError
from hbir.frontends.onnx import export
from tests.tools.small import SHAPE, build_model
from tools.job import Image
from tools.preprocessing import insert_image_input


@pytest.mark.parametrize("fed", ["rgb", "bgr"])
@pytest.mark.parametrize("numbers", [((), ()), ((128.0,), ()), ((1, 2, 3), (0.5, 0.25, 0.125)), ((), (0.01,))])
def test_float_results_are_those_of_a_prepared_picture(
    tmp_path: Path, fed: str, numbers: tuple[tuple[float, ...], tuple[float, ...]]
) -> None:
    plain, module = (export(build_model(tmp_path / "m.onnx")) for _ in range(2))
    mean, scale = numbers
    insert_image_input(module, "x", Image("rgb", fed, "NCHW", mean, scale))
    (argument,) = module[0].flatten_inputs
    assert argument.name == "x" and argument.type.shape == (1, 16, 16, 3)
    rgb = np.random.default_rng(1).integers(0, 256, SHAPE).astype(np.float32)
    shift = np.array(mean or 0, np.float32).reshape(1, -1, 1, 1)
    factor = np.array(scale or 1, np.float32).reshape(1, -1, 1, 1)
    expected = plain[0].feed({"x": (rgb - shift) * factor})["y"]
    pixels = rgb.transpose(0, 2, 3, 1)
    actual = module[0].feed({"x": np.ascontiguousarray(pixels if fed == "rgb" else pixels[..., ::-1])})["y"]
    # Some 1000 float32 products in another order: 1000 x 2^-24, with room.
    assert np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max()


def test_a_gray_picture_keeps_its_layout(tmp_path: Path) -> None:
    import onnx

    model = onnx.load(build_model(tmp_path / "m.onnx"))
    weight = onnx.numpy_helper.to_array(model.graph.initializer[0])[:, :1]
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(weight), "w"))
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
    plain, module = export(model), export(model)
    insert_image_input(module, "x", Image("gray", "gray", "NCHW", (100.0,), (0.01,)))
    assert module[0].flatten_inputs[0].type.shape == (1, 1, 16, 16)
    pixels = np.random.default_rng(1).integers(0, 256, (1, 1, 16, 16)).astype(np.float32)
    expected = plain[0].feed({"x": (pixels - 100) * np.float32(0.01)})["y"]
    assert np.abs(module[0].feed({"x": pixels})["y"] - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("image", "code"),
    [
        (Image("gray", "gray", "NCHW"), "HB0819"),
        (Image("rgb", "rgb", "NHWC"), "HB0819"),
        (Image("rgb", "rgb", "NCHW", (1.0, 2.0)), "HB0813"),
        (Image("rgb", "rgb", "NCHW", (), (1.0, 1.0, 1.0, 1.0)), "HB0813"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, image: Image, code: str) -> None:
    with pytest.raises(ConfigError, match=code):
        insert_image_input(export(build_model(tmp_path / "m.onnx")), "x", image)
