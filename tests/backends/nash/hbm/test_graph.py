"""The description of a model: every field is read strictly, at its bounds and one beyond them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from backends.nash.hbm import Quantization
from backends.nash.hbm.graph import canonical_json, graph_to_json, parse_canonical, parse_cells, parse_graph
from hbir.errors import FileFormatError
from tests.backends.nash.samples import pool_model

Json = dict[str, Any]


def graph() -> Json:
    return json.loads(graph_to_json(pool_model()))


def parsed(value: object) -> Json:
    return parse_graph(memoryview(canonical_json(value)))


def refused(value: object, *words: str) -> None:
    with pytest.raises(FileFormatError) as caught:
        parsed(value)
    assert caught.value.code == "HB0625"
    assert caught.value.lever
    for word in words:
        assert word in str(caught.value)


def test_canonical_json_is_one_text() -> None:
    assert (
        canonical_json({"b": "é", "a": [1, {"d": None, "c": 0.5}]}) == '{"a":[1,{"c":0.5,"d":null}],"b":"é"}'.encode()
    )
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON compliant"):
            canonical_json(value)


def test_a_description_comes_back() -> None:
    model = pool_model()
    channels = Quantization((0.5,) * 16, tuple(range(16)), 3)
    model = replace(model, inputs=(replace(model.inputs[0], quantization=channels, description="ü"),))
    found = parse_graph(memoryview(graph_to_json(model)))
    names = ("name", "march", "memories", "inputs", "outputs", "options", "description", "tool_version")
    assert found == {name: getattr(model, name) for name in names}
    assert parse_graph(memoryview(graph_to_json(replace(model, outputs=(replace(model.outputs[0], quantization=None),)))))[
        "outputs"
    ][0].quantization is None  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"[1", "'x' is not JSON"),
        (b"\xff", "'x' is not JSON"),
        (b"[" * 100000, "'x' is not JSON"),
        (b"[1e999]", "'x' is not JSON"),
        (b'"\\ud800"', "'x' is not JSON"),
        (b"[1, 2]", "'x' is not canonical JSON"),
        (b'{"b":1,"a":1}', "'x' is not canonical JSON"),
        (b'"\\u00fc"', "'x' is not canonical JSON"),
    ],
)
def test_other_texts_are_refused(text: bytes, words: str) -> None:
    with pytest.raises(FileFormatError, match="HB0625") as caught:
        parse_canonical(memoryview(text), "x")
    assert words in str(caught.value)


class Long:
    """Bytes that claim a length, so that a cap needs no memory."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __bytes__(self) -> bytes:
        return b"{}"


class LongList(list[Any]):
    """The same for lists."""

    length = 0

    def __len__(self) -> int:
        return self.length


def test_long_texts_and_lists_are_refused_before_they_are_read() -> None:
    assert parse_canonical(cast(memoryview, Long(8 << 20)), "x") == {}
    with pytest.raises(FileFormatError, match="'x' has 8388609 bytes"):
        parse_canonical(cast(memoryview, Long((8 << 20) + 1)), "x")
    rows = LongList([{}])
    rows.length = 1 << 20
    assert parse_cells(rows, "x") == ({},)
    rows.length += 1
    with pytest.raises(FileFormatError, match="x is not a list of at most 1048576"):
        parse_cells(rows, "x")


def set_at(path: str, value: object) -> Json:
    """The description with the value at a path such as ``inputs.0.view.shape``."""
    found: Any = graph()
    *keys, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    at = found
    for key in keys:
        at = at[key]
    at[last] = value
    return found


Q, V = "inputs.0.quantization", "inputs.0.view"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("memories.ddr", 1 << 36),
        ("memories.constants", 12288),
        ("memories.constants", 0),
        ("memories.l1m", 4194304),
        (f"{V}.address", 0),
        (f"{V}.shape", []),
        (f"{Q}.scales", [1]),
        (f"{Q}.scales", [5e-324]),
        (f"{Q}.scales", [9 * 10**37]),
        (f"{Q}.scales", [math.nextafter(1e38, 0.0)]),
        (f"{Q}.zero_points", [-(1 << 31)]),
        (f"{Q}.zero_points", [(1 << 31) - 1]),
        (Q, None),
        (Q, {"axis": 0, "scales": [1.0], "zero_points": [0]}),
        (Q, {"axis": 3, "scales": [1.0] * 16, "zero_points": [0] * 16}),
        ("options", {"a": 1, "b": "c", "d": None, "e": 0.5, "f": True}),
        ("inputs", []),
        ("march.cores", 28),
    ],
)
def test_values_at_their_bounds_are_read(path: str, value: object) -> None:
    changed = set_at(path, value)
    if path.endswith("shape"):
        changed["inputs"][0]["view"]["strides"] = []
        changed["inputs"][0]["quantization"] = None
    assert parsed(changed)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("name", 3, "graph.name is not a string"),
        ("name", None, "graph.name is not a string"),
        ("memories.ddr", (1 << 36) + 1, "graph.memories.ddr is not an integer between 0 and 2^36"),
        ("memories.ddr", -1, "graph.memories.ddr is not an integer between"),
        ("memories.ddr", 1.0, "graph.memories.ddr is not an integer between"),
        ("memories.l2m", False, "graph.memories.l2m is not an integer between"),
        ("memories", [], "graph.memories is not an object with the keys constants, cores, ddr, l1m, l2m"),
        ("memories.ddr", 63, "which nash-e does not have"),
        ("memories.cores", 2, "which nash-e does not have"),
        ("memories.cores", 0, "which nash-e does not have"),
        ("memories.l1m", 4194305, "which nash-e does not have"),
        ("memories.l2m", 1, "which nash-e does not have"),
        (f"{V}.address", "0", "graph.inputs[0].view.address is not an integer"),
        (f"{V}.dtype", "i7", "graph.inputs[0].view is not a view"),
        (f"{V}.shape", [8, 8, 16], "graph.inputs[0].view is not a view"),
        (f"{V}.shape", [1, 8, 0, 16], "graph.inputs[0].view is not a view"),
        (f"{V}.shape", [1] * 7, "graph.inputs[0].view.shape is not a list of at most 6"),
        (f"{V}.strides", [1] * 7, "graph.inputs[0].view.strides is not a list of at most 6"),
        (f"{V}.shape", "1", "graph.inputs[0].view.shape is not a list of at most 6"),
        (f"{V}.strides", [1, 1, 1, -1], "graph.inputs[0].view.strides[3] is not an integer between"),
        (f"{Q}.scales", [0.0], "graph.inputs[0].quantization has 1 scales"),
        (f"{Q}.scales", [-1.0], "graph.inputs[0].quantization has 1 scales"),
        (f"{Q}.scales", [], "graph.inputs[0].quantization has 0 scales and 1 zero points"),
        (f"{Q}.scales", [1.0, 1.0], "graph.inputs[0].quantization has 2 scales and 1 zero points"),
        (f"{Q}.scales", [True], "graph.inputs[0].quantization.scales[0] is not a number below 10^38"),
        (f"{Q}.scales", ["1"], "graph.inputs[0].quantization.scales[0] is not a number below 10^38"),
        (f"{Q}.scales", [1e38], "graph.inputs[0].quantization.scales[0] is not a number below 10^38"),
        (f"{Q}.scales", [-1e38], "graph.inputs[0].quantization.scales[0] is not a number below 10^38"),
        (f"{Q}.scales", [10**400], "graph.inputs[0].quantization.scales[0] is not a number below 10^38"),
        (f"{Q}.scales", [-(10**400)], "graph.inputs[0].quantization.scales[0] is not a number below 10^38"),
        (f"{Q}.zero_points", [1 << 31], "graph.inputs[0].quantization.zero_points[0] is not an integer of 32 bits"),
        (f"{Q}.zero_points", [-(1 << 31) - 1], "zero_points[0] is not an integer of 32 bits"),
        (f"{Q}.zero_points", [0.5], "zero_points[0] is not an integer of 32 bits"),
        (f"{Q}.zero_points", [True], "zero_points[0] is not an integer of 32 bits"),
        (f"{Q}.axis", -1, "graph.inputs[0].quantization.axis is not an integer"),
        (Q, {"axis": None, "scales": [1.0, 1.0], "zero_points": [0, 0]}, "has 2 scales and 2 zero points"),
        (Q, {"axis": 1, "scales": [1.0] * 7 + [0.0], "zero_points": [0] * 8}, "has 8 scales and 8 zero points"),
        (Q, {"axis": 4, "scales": [1.0], "zero_points": [0]}, "graph.inputs[0] has 1 scales along axis 4 of (1, 8"),
        (Q, {"axis": 2, "scales": [1.0], "zero_points": [0]}, "graph.inputs[0] has 1 scales along axis 2 of (1, 8"),
        ("options", {"a": [1]}, "graph.options is not an object of plain values"),
        ("options", [], "graph.options is not an object of plain values"),
        ("march", [], "graph.march is not an object"),
        ("march.cores", -1, "cores"),
        ("inputs", {}, "graph.inputs is not a list of at most 512"),
        ("outputs", {}, "graph.outputs is not a list of at most 512"),
    ],
)
def test_values_beyond_their_bounds_are_refused_by_name(path: str, value: object, words: str) -> None:
    refused(set_at(path, value), words)


@pytest.mark.parametrize("change", [lambda g: g.pop("name"), lambda g: g.update(extra=1)])
def test_other_keys_are_refused(change: Callable[[Json], object]) -> None:
    changed = graph()
    change(changed)
    refused(changed, "graph is not an object with the keys description, inputs, march, memories, name, options")


@pytest.mark.parametrize("kind", ["inputs", "outputs"])
def test_names_are_given_once_to_at_most_512(kind: str) -> None:
    first = graph()[kind][0]
    many = [first | {"name": f"t{index}"} for index in range(513)]
    assert len(parsed(graph() | {kind: many[:512]})[kind]) == 512
    refused(graph() | {kind: many}, f"graph.{kind} is not a list of at most 512")
    refused(graph() | {kind: [first, first]}, "two inputs or two outputs have one name")


def test_an_output_may_have_the_name_of_an_input() -> None:
    changed = graph()
    changed["outputs"][0]["name"] = changed["inputs"][0]["name"]
    assert parsed(changed)


def test_cells_are_flat() -> None:
    rows = [{"a": 1, "b": "c", "d": None}, {"e": 0.5, "f": False}]
    assert parse_cells(rows, "x") == tuple(rows)
    for bad in ([{"a": {}}], [{"a": 1, "b": []}], [1], {}):
        with pytest.raises(FileFormatError, match="HB0625"):
            parse_cells(bad, "x")
