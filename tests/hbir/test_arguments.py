"""What is not of the type that a public function takes is refused with code, reason and lever: never a bare TypeError."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hbir
from hbir import Module
from hbir.arguments import checked_index, checked_kind, checked_path, checked_text, shown
from hbir.errors import HbError, IrError

TEXT = """
"builtin.module"() ({
  "func.func"() <{sym_name = "net", function_type = (tensor<1x4x4x3xf32>) -> tensor<1x4x4x3xf32>}> ({
  ^bb0(%x: tensor<1x4x4x3xf32>):
    %0 = "hbir.clip"(%x) <{min = 0.0 : f64}> : (tensor<1x4x4x3xf32>) -> tensor<1x4x4x3xf32>
    "func.return"(%0) : (tensor<1x4x4x3xf32>) -> ()
  }) : () -> ()
}) : () -> ()
"""
X = np.zeros((1, 4, 4, 3), np.float32)


def _set(name: str, value: Any) -> Callable[[Module], object]:
    return lambda module: setattr(module[0].flatten_inputs[0], name, value)


MISUSES: dict[str, tuple[str, Callable[[Module], object]]] = {
    "feed None": ("HB0232", lambda m: m[0].feed(None)),
    "feed a list": ("HB0232", lambda m: m[0].feed([X])),
    "feed nothing": ("HB0232", lambda m: m[0].feed({})),
    "feed a misspelt name": ("HB0232", lambda m: m[0].feed({"_imput_0": X})),
    "feed one too many": ("HB0232", lambda m: m[0].feed({"_input_0": X, "b": X})),
    "feed names of several types": ("HB0232", lambda m: m[0].feed({1: X, "b": X, None: X})),
    "feed a text": ("HB0222", lambda m: m[0].feed({"_input_0": "x"})),
    "call with too many": ("HB0232", lambda m: m[0](X, X)),
    "position behind the end": ("HB0233", lambda m: m[5]),
    "position before the start": ("HB0233", lambda m: m[-2]),
    "position True": ("HB0233", lambda m: m[True]),
    "position 0.0": ("HB0233", lambda m: m[0.0]),
    "position None": ("HB0233", lambda m: m[None]),
    "a slice": ("HB0233", lambda m: m[0:1]),
    "unknown name": ("HB0233", lambda m: m["nobody"]),
    "load None": ("HB0234", lambda m: hbir.load(None)),
    "load a number": ("HB0234", lambda m: hbir.load(3)),
    "load bytes": ("HB0234", lambda m: hbir.load(b"a.mlir")),
    "load a zero character": ("HB0234", lambda m: hbir.load("a\0.mlir")),
    "load half a pair": ("HB0234", lambda m: hbir.load("\ud800.mlir")),
    "save to a number": ("HB0234", lambda m: hbir.save(m, 3)),
    "save to a zero character": ("HB0234", lambda m: hbir.save(m, "a\0.mlir")),
    "save no module": ("HB0236", lambda m: hbir.save(str(m), "a.mlir")),
    "statistics of None": ("HB0236", lambda m: hbir.statistics(None)),
    "export a number": ("HB0101", lambda m: hbir.export(123)),
    "parse None": ("HB0205", lambda m: Module.parse(None)),
    "parse bytes": ("HB0205", lambda m: Module.parse(TEXT.encode())),
    "name 3": ("HB0235", _set("name", 3)),
    "name half a pair": ("HB0235", _set("name", "\ud800")),
    "description None": ("HB0235", _set("desc", None)),
    "description half a pair": ("HB0235", _set("desc", "a\udfff")),
    "march 3": ("HB0235", lambda m: setattr(m, "march", 3)),
    "transpose None": ("HB0240", lambda m: m[0].flatten_inputs[0].insert_transpose(None)),
    "transpose a text": ("HB0240", lambda m: m[0].flatten_inputs[0].insert_transpose("0123")),
    "transpose of Nones": ("HB0240", lambda m: m[0].flatten_inputs[0].insert_transpose([None] * 4)),
    "split None": ("HB0240", lambda m: m[0].flatten_inputs[0].insert_split(None)),
    "split a text": ("HB0240", lambda m: m[0].flatten_inputs[0].insert_split("0")),
    "split behind the end": ("HB0240", lambda m: m[0].flatten_inputs[0].insert_split(4)),
    "image mode of a list": ("HB0241", lambda m: m[0].flatten_inputs[0].insert_image_preprocess([])),
    "remove a text": ("HB0242", lambda m: m[0].remove_io_op("Cast")),
    "remove a number": ("HB0242", lambda m: m[0].remove_io_op(3)),
    "remove names as one text": ("HB0242", lambda m: m[0].remove_io_op(op_names="conv")),
}


@pytest.mark.parametrize("name", MISUSES)
def test_misuse_is_refused_with_a_lever(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, misuse = MISUSES[name]
    module = Module.parse(TEXT)
    with pytest.raises(HbError) as refusal:
        misuse(module)
    assert refusal.value.code == code
    assert refusal.value.what and refusal.value.lever
    assert str(module) == str(Module.parse(TEXT)), "a refused call changes nothing"
    assert list(tmp_path.iterdir()) == []


def test_iterating_over_a_module_ends() -> None:
    module = Module.parse(TEXT)
    assert len(module) == 1
    assert [function.name for function in module] == ["net"]
    assert module[np.int64(0)].name == module[-1].name == "net"


def _refuse(given: str, why: str) -> HbError:
    return IrError(99, given, why=why, lever="mend it")


def test_what_fits_passes() -> None:
    assert checked_index(np.uint8(3), _refuse) == 3
    assert checked_kind(True, bool, _refuse) is True
    assert checked_text("größe", _refuse) == "größe"
    assert checked_path("a/b", _refuse) == checked_path(Path("a/b"), _refuse) == Path("a/b")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((None, "None"), ("x", "'x'"), (3, "3"), (0.5, "0.5"), ([1], "a list"), ("x" * 99, "a str")),
        *((int, "the class int"), (X, "a ndarray")),
    ],
)
def test_values_are_shown_briefly(value: object, text: str) -> None:
    assert shown(value) == text
