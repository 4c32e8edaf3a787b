"""Operators as exporters combine them, on computed data, against onnxruntime: what ONNX's node tests leave out."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from hbir.errors import ImportModelError
from hbir.frontends.onnx import export
from hbir.module import Module
from tests.hbir.frontends.onnx.models import text_model

IMAGE = (1, 8, 6, 5)
ROOT = 8 * 2.0**-24
"""A few roundings of float32, relative to the largest value: the reference may add in another order."""


def agrees(model: onnx.ModelProto, **shapes: tuple[int, ...]) -> Module:
    """Import a model and compare one run with onnxruntime's, which optimises nothing."""
    options: Any = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    reference: Any = onnxruntime.InferenceSession(model.SerializeToString(), options)
    generator = np.random.default_rng(7)
    feeds = {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    expected = reference.run(None, feeds)
    module = export(model)
    module.verify()
    got = module[0].feed(feeds)
    for value, array in zip(reference.get_outputs(), expected, strict=True):
        assert got[value.name].shape == array.shape
        terms = max(array.size, 64)
        assert np.abs(got[value.name] - array).max() <= ROOT * np.sqrt(terms) * max(1.0, np.abs(array).max())
    return module


def refusal(model: onnx.ModelProto) -> ImportModelError:
    with pytest.raises(ImportModelError) as caught:
        export(model)
    return caught.value


# Products by index letters

EINSUMS = [
    ("bij,bjk->bik", (2, 3, 4), (2, 4, 5)),
    ("bhid,bhjd->bhij", (1, 2, 5, 4), (1, 2, 3, 4)),
    ("bchw,bdhw->bcd", (2, 3, 4, 5), (2, 6, 4, 5)),
    ("...ij,...jk->...ik", (2, 3, 4), (2, 4, 5)),
    ("ij,jk", (3, 4), (4, 2)),
    ("bc,bd->bcd", (2, 3), (2, 4)),
    ("bchw,bc->bchw", (2, 3, 4, 5), (2, 3)),
    ("ab,ba->", (3, 4), (4, 3)),
    ("nctv,vw->nwtc", (1, 2, 3, 4), (4, 5)),
    ("bhi , hj -> jb", (2, 3, 4), (3, 5)),
]


@pytest.mark.parametrize(("equation", "left", "right"), EINSUMS)
def test_einsum_of_data(equation: str, left: tuple[int, ...], right: tuple[int, ...]) -> None:
    signature = f"(float[{','.join(map(str, left))}] x, float[{','.join(map(str, right))}] y) => (float z)"
    model = text_model(f'z = Einsum <equation = "{equation}"> (x, y)', signature)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    agrees(model, x=left, y=right)


@pytest.mark.parametrize("equation", ["ij->ji", "ijk->k", "bij->b", "...i->i..."])
def test_einsum_of_one_operand(equation: str) -> None:
    shape = (2, 3, 4) if len(equation.split("->")[0]) > 2 else (3, 4)
    model = text_model(
        f'z = Einsum <equation = "{equation}"> (x)', f"(float[{','.join(map(str, shape))}] x) => (float z)"
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    agrees(model, x=shape)


@pytest.mark.parametrize("body", ['"bld,dk->blk"> (x, w)', '"dk,bld->blk"> (w, x)'])
def test_einsum_with_a_matrix_is_a_linear_layer(body: str) -> None:
    weight = np.random.default_rng(1).standard_normal((4, 5)).astype(np.float32)
    model = text_model(
        f"z = Einsum <equation = {body}", "(float[2,3,4] x) => (float[2,3,5] z)", constants={"w": weight}
    )
    module = agrees(model, x=(2, 3, 4))
    assert "hbir.linear" in [op.name for op in module[0].operations]


@pytest.mark.parametrize("equation", ["bii->bi", "i,j,k->ijk", "bij->bj->b", "bi->bz"])
def test_einsum_that_is_refused(equation: str) -> None:
    operands = ", ".join("x" for _ in equation.split("->")[0].split(","))
    rank = equation.split("->")[0].split(",")[0]
    signature = f"(float[{','.join('3' for _ in rank)}] x) => (float[3] y)"
    assert refusal(text_model(f'y = Einsum <equation = "{equation}"> ({operands})', signature)).code == "HB0113"


# Masks and windows that are known before the network runs


def test_window_mask_filled_by_scatter() -> None:
    """A shifted-window mask as torch exports it: zeros, filled in place by ScatterND."""
    model = text_model(
        """s = Constant <value_ints = [4]> ()
           zero = ConstantOfShape(s)
           at = Constant <value = int64[2,1] {1, 3}> ()
           two = Constant <value_floats = [2.0, 2.0]> ()
           mask = ScatterND(zero, at, two)
           y = Add(x, mask)""",
        "(float[4] x) => (float[4] y)",
    )
    assert export(model)[0].feed({"x": np.zeros(4, np.float32)})["y"].tolist() == [0, 2, 0, 2]


def test_scatter_outside_the_tensor() -> None:
    model = text_model(
        "at = Constant <value = int64[1,1] {4}> () m = ScatterND(c, at, u) y = Add(x, m)",
        "(float[4] x) => (float[4] y)",
        constants={"c": np.zeros(4, np.float32), "u": np.ones(1, np.float32)},
    )
    assert refusal(model).code == "HB0117"


@pytest.mark.parametrize("other", ["c", "x", "one"])
def test_where_with_a_known_mask(other: str) -> None:
    mask = np.tril(np.ones((5, 5), bool))[None]
    model = text_model(
        f"t = Sigmoid(x) y = Where(m, t, {other})",
        "(float[2,5,5] x) => (float[2,5,5] y)",
        constants={"m": mask, "c": np.full((5, 5), -9, np.float32), "one": np.float32(1)},
    )
    agrees(model, x=(2, 5, 5))


def test_where_broadcasts_the_data() -> None:
    mask = np.array([[True], [False]])
    model = text_model(
        "y = Where(m, x, zero)", "(float[3] x) => (float[2,3] y)", constants={"m": mask, "zero": np.float32(0)}
    )
    agrees(model, x=(3,))


def test_where_with_a_computed_mask_is_refused() -> None:
    model = text_model(
        "m = Greater(x, zero) y = Where(m, x, zero)",
        "(float[3] x) => (float[3] y)",
        constants={"zero": np.float32(0)},
    )
    assert refusal(model).code == "HB0119"


# Normalisations


def test_group_normalization() -> None:
    generator = np.random.default_rng(2)
    constants = {name: generator.standard_normal(8).astype(np.float32) for name in ("scale", "bias")}
    model = text_model(
        "y = GroupNormalization <num_groups = 4> (x, scale, bias)",
        "(float[1,8,6,5] x) => (float[1,8,6,5] y)",
        opset=21,
        constants=constants,
    )
    agrees(model, x=IMAGE)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_local_response_normalization(size: int) -> None:
    model = text_model(
        f"y = LRN <size = {size}, alpha = 0.5, beta = 0.75, bias = 2.0> (x)", "(float[1,8,6,5] x) => (float[1,8,6,5] y)"
    )
    agrees(model, x=IMAGE)


@pytest.mark.parametrize("p", [1, 2])
def test_lp_normalization(p: int) -> None:
    model = text_model(f"y = LpNormalization <axis = 1, p = {p}> (x)", "(float[1,8,6,5] x) => (float[1,8,6,5] y)")
    agrees(model, x=IMAGE)


def test_vector_of_zeros_stays_zero() -> None:
    model = text_model("y = LpNormalization <axis = 1> (x)", "(float[1,3] x) => (float[1,3] y)")
    assert export(model)[0].feed({"x": np.zeros((1, 3), np.float32)})["y"].tolist() == [[0, 0, 0]]


def test_standardised_weight() -> None:
    """Weight standardisation as torch exports it: batch normalisation in training mode, of a weight."""
    generator = np.random.default_rng(3)
    weight = generator.standard_normal((1, 4, 12)).astype(np.float32)
    constants: dict[str, Any] = {
        "shape": np.array([4, 3, 2, 2]),
        "w": weight,
        "gain": generator.standard_normal(4).astype(np.float32),
        **{name: np.zeros(4, np.float32) for name in ("zero", "mean")},
        "var": np.ones(4, np.float32),
    }
    model = text_model(
        """n, m, v = BatchNormalization <training_mode = 1, epsilon = 0.001> (w, gain, zero, mean, var)
           k = Reshape(n, shape)
           y = Conv(x, k)""",
        "(float[1,3,5,5] x) => (float[1,4,4,4] y)",
        constants=constants,
    )
    agrees(model, x=(1, 3, 5, 5))


@pytest.mark.parametrize("keep", [0, 1])
def test_log_sum_exp_of_large_values(keep: int) -> None:
    shape = "2,1" if keep else "2"
    model = text_model(
        f"t = Mul(x, k) y = ReduceLogSumExp <axes = [1], keepdims = {keep}> (t)",
        f"(float[2,5] x) => (float[{shape}] y)",
        constants={"k": np.float32(100)},
    )
    agrees(model, x=(2, 5))


# Opsets above 22


@pytest.mark.parametrize("opset", [23, 24, 25, 26])
def test_newest_opsets(opset: int) -> None:
    module = export(text_model("t = Softmax(x) y = Relu(t)", opset=opset, ir_version=11))
    assert [op.name for op in module[0].operations] == ["hbir.softmax", "hbir.clip"]


def test_root_mean_square_normalization_and_swish() -> None:
    scale = np.array([0.5, 1, 2], np.float32)
    model = text_model(
        "t = RMSNormalization <epsilon = 0.25> (x, scale) y = Swish <alpha = 2.0> (t)",
        "(float[2,3] x) => (float[2,3] y)",
        opset=24,
        ir_version=11,
        constants={"scale": scale},
    )
    x = np.array([[1, -2, 3], [0, 0, 0.5]], np.float32)
    t = x / np.sqrt((x.astype(np.float64) ** 2).mean(1, keepdims=True) + 0.25) * scale
    expected = t / (1 + np.exp(-2 * t))
    assert np.abs(export(model)[0].feed({"x": x})["y"] - expected).max() <= 16 * 2.0**-24 * np.abs(expected).max()


# What is refused, before anything else is asked


def test_unsupported_operator_comes_before_the_input_shape() -> None:
    model = text_model("t = Relu(x) y = LSTM(t, t, t)", signature="(float[1,n] x) => (float[1,n] y)")
    assert refusal(model).code == "HB0114"


def test_all_unknown_operators_are_named() -> None:
    error = refusal(text_model("a = Hardmax(x) b = Det(a) c = Hardmax(b) y = NonMaxSuppression(c)"))
    assert error.code == "HB0110" and "Hardmax" in error.what
    assert "Det, NonMaxSuppression" in error.why


@pytest.mark.parametrize(
    ("operator", "lever"),
    [("QLinearConv", "QDQ"), ("NonMaxSuppression", "end the model before"), ("TopK", "end the model before")],
)
def test_lever_fits_the_operator(operator: str, lever: str) -> None:
    assert lever in refusal(text_model(f"y = {operator}(x)")).lever
