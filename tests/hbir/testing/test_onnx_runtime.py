"""onnxruntime as a judge: it agrees with what was imported, and says where something else differs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from hbir import Module, export
from hbir.dialects.hbir import Conv2dOp
from hbir.testing.oracles import assert_agrees_with_onnxruntime
from tests.hbir.frontends.onnx.models import text_model

TINY = Path(__file__).resolve().parents[2] / "data" / "tiny.onnx"


def _feeds(count: int = 2) -> list[Mapping[str, Any]]:
    rng = np.random.default_rng(5)
    return [{"x": rng.standard_normal((1, 3, 16, 16)).astype(np.float32)} for _ in range(count)]


@pytest.mark.parametrize("kind", ["path", "text", "bytes", "model"])
def test_an_imported_model_agrees(kind: str) -> None:
    model = {"path": TINY, "text": str(TINY), "bytes": TINY.read_bytes(), "model": onnx.load(TINY)}[kind]
    assert_agrees_with_onnxruntime(model, export(TINY), _feeds())


def test_a_changed_module_does_not() -> None:
    module = export(TINY)
    convolution = next(op for op in module[0].operations if isinstance(op, Conv2dOp))
    # The weights of the same shape that another seed would have had.
    weight = convolution.weight.owner
    changed = -weight.array(module.constants)  # pyright: ignore[reportAttributeAccessIssue]
    from hbir.dialects.base import tensor_type
    from hbir.dialects.hbir import constant

    made = constant(changed, module.constants, tensor_type(convolution.weight.type).element_type)
    convolution.parent_block().insert_op_before(made, convolution)  # pyright: ignore[reportOptionalMemberAccess]
    convolution.operands[1] = made.output
    with pytest.raises(AssertionError, match=r"output '.*' of feed 1"):
        assert_agrees_with_onnxruntime(TINY, module, _feeds())


def test_integers_are_equal_or_wrong() -> None:
    model = text_model("y = ArgMax <axis = 1, keepdims = 0> (x)", "(float[2,5] x) => (int64[2] y)")
    feeds = [{"x": np.arange(10, dtype=np.float32).reshape(2, 5)}]
    assert_agrees_with_onnxruntime(model, export(model), feeds)
    other = export(text_model("y = ArgMin <axis = 1, keepdims = 0> (x)", "(float[2,5] x) => (int64[2] y)"))
    with pytest.raises(AssertionError, match="2 of 2 values differ"):
        assert_agrees_with_onnxruntime(model, other, feeds)


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(ValueError, match="no feed"):
        assert_agrees_with_onnxruntime(TINY, export(TINY), [])


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"onnxruntime: pip install 'hbir\[test\]'"):
        assert_agrees_with_onnxruntime(TINY, export(TINY), _feeds())


def test_outputs_are_compared_by_name() -> None:
    module: Module = export(TINY)
    module[0].flatten_outputs[0].name = "other"
    with pytest.raises(AssertionError, match=r"outputs \['other'\]"):
        assert_agrees_with_onnxruntime(TINY, module, _feeds(1))
