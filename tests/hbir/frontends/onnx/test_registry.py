"""ONNX's own node tests as an oracle for every converter: a case whose operators are claimed is run or has a reason."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest

from hbir.errors import ImportModelError
from hbir.frontends.onnx import export, supported_operators
from hbir.frontends.onnx.reader import MAX_OPSET
from hbir.frontends.onnx.registry import converter_for, converts
from hbir.module import Module
from tests.hbir.frontends.onnx.models import Array, initializer

# Refusals that are right, by code: the pattern of the cases and why they are refused.
REFUSED: tuple[tuple[str, str, str], ...] = (
    ("HB0105", r"not_[234]d", "the case states opset 1"),
    ("HB0113", r"arg(min|max)_.*select_last_index", "the last of equal values"),
    ("HB0113", r"(averagepool|maxpool)_.*dilations.*", "dilated pooling windows"),
    ("HB0113", r"batchnorm_.*training_mode", "training"),
    ("HB0113", r"cast_.*(FLOAT8|FLOAT4|INT4|INT2).*", "types without a place in the float graph"),
    ("HB0113", r"convtranspose_dilations", "dilated transposed convolutions"),
    ("HB0113", r"(de)?quantizelinear_blocked.*", "blocks of scales"),
    ("HB0113", r"dynamicquantizelinear.*_expanded", "scales that depend on the data"),
    ("HB0113", r"einsum_batch_diagonal", "diagonals"),
    ("HB0113", r"maxpool_with_argmax_2d_precomputed_strides", "indices of MaxPool"),
    ("HB0113", r"wrap_pad", "cyclic padding"),
    (
        "HB0113",
        r"resize_.*cubic.*|resize_tf_crop.*|resize_.*antialias|resize_.*not_(larger|smaller)",
        "forms of Resize",
    ),
    ("HB0115", r"dropout_default_mask.*|maxpool_with_argmax.*|layer_normalization_.*", "results for training"),
    ("HB0116", r"(averagepool|maxpool|convtranspose)_3d.*", "volumes"),
    ("HB0118", r".*", "an input, output or computed tensor of integers or bools where the float graph has floats"),
    ("HB0113", r"training_dropout.*", "training"),
    ("HB0117", r"maxpool_2d_uint8", "uint8 data"),
    (
        "HB0117",
        r"reshape_allowzero_reordered|split_zero_size_splits.*|reduce_(max|min|log_sum_exp)_empty_set",
        "empty tensors",
    ),
    ("HB0119", r".*", "shapes or parameters that depend on the data"),
    ("HB0120", r"reduce_.*_empty_set.*", "empty tensors"),
    ("HB0123", r"identity_(sequence|opt)", "sequences and optionals"),
    ("HB0130", r"attention_.*causal.*", "a mask of minus infinity"),
    ("HB0130", r"reduce_log_sum_empty_set.*", "the logarithm of nothing"),
    ("HB0132", r".*string.*", "strings"),
)
# The expected numbers are not what ONNX's text and onnxruntime compute, or are stated with few digits.
DISPUTED = {
    "test_resize_downsample_scales_linear_align_corners": "a fractional result extent; onnxruntime excludes it too",
    "test_averagepool_2d_ceil_last_window_starts_on_pad": "four digits",
}
MINIMUM = 740


@cache
def node_cases() -> list[Any]:
    from onnx.backend.test.case import node

    suite: Any = node

    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        return [case for case in suite.collect_testcases(None) if case.model is not None]


def claimed() -> list[Any]:
    known = set(supported_operators())

    def names(model: Any) -> set[str]:
        return {f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in model.graph.node}

    return [case for case in node_cases() if names(case.model) <= known]


def bound(model: onnx.ModelProto, values: dict[str, Array], keep: frozenset[str]) -> onnx.ModelProto:
    """The model with every input but `keep` made a constant, at an opset that is read."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for entry in made.opset_import:
        if entry.domain == "":
            entry.version = min(entry.version, MAX_OPSET)
    inputs = [value for value in made.graph.input if value.name in keep]
    del made.graph.input[:]
    made.graph.input.extend(inputs)
    made.graph.initializer.extend(initializer(name, array) for name, array in values.items() if name not in keep)
    return made


def first_that_imports(models: list[onnx.ModelProto]) -> Module:
    for model in models[:-1]:
        with contextlib.suppress(ImportModelError):
            return export(model)
    return export(models[-1])


def run(case: Any) -> None:
    """Run a case; inputs that must be known are made constants, from none over all but the first float to all."""
    inputs, outputs = case.data_sets[0]
    values: dict[str, Any] = dict(zip((value.name for value in case.model.graph.input), inputs, strict=False))
    floats = [name for name, array in values.items() if getattr(np.asarray(array), "dtype", np.dtype("O")).kind == "f"]
    plain = all(isinstance(array, np.ndarray | np.generic) for array in values.values())
    attempts = [frozenset(values), frozenset(floats[:1]), frozenset[str]()] if plain else [frozenset(values)]
    module = first_that_imports([bound(case.model, values, keep) for keep in attempts])
    module.verify()
    function = module[0]
    feeds = {a.name: np.asarray(values[a.name]).astype(a.type.np_dtype) for a in function.flatten_inputs}
    got = function.feed(feeds)
    half = any(
        value.type.tensor_type.elem_type in (10, 16) for value in (*case.model.graph.input, *case.model.graph.output)
    )
    for value, array in zip(case.model.graph.output, outputs, strict=True):
        expected = np.asarray(array)
        expected = expected.astype(np.float32) if expected.dtype.kind == "f" else expected
        assert got[value.name].shape == expected.shape
        # Float16 cases were computed in float16 and are computed in float32 here: 2 units of 2^-11.
        relative, absolute = (1e-3, 1e-3) if half else (1e-5, 1e-6)
        np.testing.assert_allclose(got[value.name], expected, rtol=relative, atol=absolute)


def test_node_suite(capsys: pytest.CaptureFixture[str]) -> None:
    passed, reasons, wrong = 0, Counter[str](), list[str]()
    cases = claimed()
    for case in cases:
        if case.name in DISPUTED:
            reasons[DISPUTED[case.name]] += 1
            continue
        if any(isinstance(value, onnx.TensorProto) for value in case.data_sets[0][0]):
            reasons["narrow types (casts, quantisation), whose data the suite keeps as TensorProto"] += 1
            continue
        try:
            run(case)
            passed += 1
        except ImportModelError as error:
            name = case.name.removeprefix("test_")
            reason = next(
                (why for code, names, why in REFUSED if code == error.code and re.fullmatch(names, name)), None
            )
            if reason is None:
                wrong.append(f"{case.name}: {error}")
            else:
                reasons[f"{error.code} {reason}"] += 1
        except AssertionError as error:
            wrong.append(f"{case.name}: {str(error).strip()[:300]}")
    with capsys.disabled():
        print(f"\nONNX node tests: {passed} of {len(cases)} claimed cases agree; refused or left out:")
        for reason, count in sorted(reasons.items()):
            print(f"  {count:4d}  {reason}")
    assert not wrong, "\n".join(wrong)
    assert passed >= MINIMUM


def test_greatest_version_not_above() -> None:
    names = {
        opset: getattr(converter_for("Split", "", opset), "__name__", None) for opset in (1, 2, 12, 13, 17, 18, 22)
    }
    assert names == {
        1: None,
        2: "split_v2",
        12: "split_v2",
        13: "split_v13",
        17: "split_v13",
        18: "split_v18",
        22: "split_v18",
    }


def test_unversioned_converter_is_refused() -> None:
    def nameless(node: Any) -> Any:
        return node

    with pytest.raises(ValueError, match="does not end in _vN"):
        converts("Nothing")(nameless)


def test_supported_operators_are_sorted() -> None:
    listed = supported_operators()
    assert list(listed) == sorted(listed, key=lambda name: ("::" in name, name))
    assert listed["Softmax"] == [1, 13]
    assert listed["com.microsoft::QuantizeLinear"] == [1]
