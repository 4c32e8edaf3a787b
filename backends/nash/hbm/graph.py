"""The `graph` section: a model's description as canonical JSON, written and strictly read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, cast

from backends.nash.hbm.model import Cell, Model, Quantization, Tensor
from backends.nash.isa import DTYPES, Memories, View
from hbir.errors import BackendError, FileFormatError
from hbir.march import March, march_from_values, march_values

__all__ = ["canonical_json", "graph_to_json", "parse_canonical", "parse_cells", "parse_graph"]

_JSON_CAP = 8 << 20
"""Bytes of a description: JSON takes twenty times as much memory as its text."""
_DDR_CAP = 1 << 36
_IO_CAP = 512
_LARGEST = 1e38


def canonical_json(value: object) -> bytes:
    """Sorted keys, no spaces, UTF-8: one text for one value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _refuse(why: str) -> NoReturn:
    raise FileFormatError(25, "the .hbm file describes no model", why=why, lever="compile the model again")


def parse_canonical(data: memoryview, what: str) -> Any:
    """The value of a JSON section. Raises FileFormatError HB0625 unless the bytes are exactly its canonical text."""
    if len(data) > _JSON_CAP:
        _refuse(f"'{what}' has {len(data)} bytes")
    try:
        value = json.loads(bytes(data))
        same = canonical_json(value) == bytes(data)
    except (ValueError, RecursionError, UnicodeError) as error:
        _refuse(f"'{what}' is not JSON: {error}")
    if not same:
        _refuse(f"'{what}' is not canonical JSON")
    return value


def _fields(value: object, where: str, **readers: Callable[[Any, str], Any]) -> dict[str, Any]:
    """An object with exactly these keys, each read by its reader."""
    if not isinstance(value, dict) or set(cast(dict[str, Any], value)) != set(readers):
        _refuse(f"{where} is not an object with the keys {', '.join(sorted(readers))}")
    table = cast(dict[str, Any], value)
    return {key: read(table[key], f"{where}.{key}") for key, read in readers.items()}


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        _refuse(f"{where} is not a string")
    return value


def _natural(value: object, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _DDR_CAP:
        _refuse(f"{where} is not an integer between 0 and 2^36")
    return value


def _integer(value: object, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not -(1 << 31) <= value < 1 << 31:
        _refuse(f"{where} is not an integer of 32 bits")
    return value


def _number(value: object, where: str) -> float:
    # A large integer is no float, and asking whether it is finite fails.
    if not isinstance(value, int | float) or isinstance(value, bool) or not -_LARGEST < value < _LARGEST:
        _refuse(f"{where} is not a number below 10^38")
    return float(value)


def _list_of(read: Callable[[Any, str], Any], cap: int = 1 << 20) -> Callable[[Any, str], tuple[Any, ...]]:
    def reader(value: object, where: str) -> tuple[Any, ...]:
        items = cast(list[Any], value)
        if not isinstance(value, list) or len(items) > cap:
            _refuse(f"{where} is not a list of at most {cap}")
        return tuple(read(item, f"{where}[{at}]") for at, item in enumerate(items))

    return reader


def _cells(value: object, where: str) -> Mapping[str, Cell]:
    if not isinstance(value, dict) or not all(isinstance(v, Cell) for v in cast(dict[str, Any], value).values()):
        _refuse(f"{where} is not an object of plain values")
    return cast(dict[str, Cell], value)


def parse_cells(value: object, where: str) -> tuple[Mapping[str, Cell], ...]:
    """A list of flat objects. Raises FileFormatError HB0625."""
    return _list_of(_cells)(value, where)


def _quantization(value: object, where: str) -> Quantization | None:
    if value is None:
        return None
    axis: Callable[[Any, str], int | None] = lambda v, w: None if v is None else _natural(v, w)  # noqa: E731
    q = Quantization(**_fields(value, where, scales=_list_of(_number), zero_points=_list_of(_integer), axis=axis))
    if (
        not q.scales
        or len(q.scales) != len(q.zero_points)
        or min(q.scales) <= 0
        or (q.axis is None and len(q.scales) != 1)
    ):
        _refuse(f"{where} has {len(q.scales)} scales and {len(q.zero_points)} zero points")
    return q


def _view(value: object, where: str) -> View:
    f = _fields(value, where, dtype=_text, shape=_list_of(_natural, 6), address=_natural, strides=_list_of(_natural, 6))
    if f["dtype"] not in DTYPES or len(f["shape"]) != len(f["strides"]) or 0 in f["shape"]:
        _refuse(f"{where} is not a view")
    return View("DDR", f["dtype"], f["shape"], f["address"], f["strides"])


def _tensor(value: object, where: str) -> Tensor:
    tensor = Tensor(**_fields(value, where, name=_text, view=_view, quantization=_quantization, description=_text))
    q, rank = tensor.quantization, len(tensor.shape)
    if q is not None and q.axis is not None and not (q.axis < rank and tensor.shape[q.axis] == len(q.scales)):
        _refuse(f"{where} has {len(q.scales)} scales along axis {q.axis} of {tensor.shape}")
    return tensor


def _memories(value: object, where: str) -> Memories:
    return Memories(
        **_fields(value, where, ddr=_natural, l1m=_natural, l2m=_natural, cores=_natural, constants=_natural)
    )


def _march(value: object, where: str) -> March:
    if not isinstance(value, dict):
        _refuse(f"{where} is not an object")
    try:
        return march_from_values(cast(dict[str, object], value))
    except BackendError as error:
        _refuse(str(error))


def _tensor_json(tensor: Tensor) -> dict[str, object]:
    v, q = tensor.view, tensor.quantization
    return {
        "name": tensor.name,
        "view": {"dtype": v.dtype, "shape": v.shape, "address": v.address, "strides": v.strides},
        "quantization": q and {"scales": q.scales, "zero_points": q.zero_points, "axis": q.axis},
        "description": tensor.description,
    }


def graph_to_json(model: Model) -> bytes:
    """The `graph` section of a model."""
    m = model.memories
    return canonical_json(
        {
            "name": model.name,
            "march": march_values(model.march),
            "memories": {"ddr": m.ddr, "l1m": m.l1m, "l2m": m.l2m, "cores": m.cores, "constants": m.constants},
            "inputs": [_tensor_json(t) for t in model.inputs],
            "outputs": [_tensor_json(t) for t in model.outputs],
            "options": dict(model.options),
            "description": model.description,
            "tool_version": model.tool_version,
        }
    )


def parse_graph(data: memoryview) -> dict[str, Any]:
    """The fields of a model that the `graph` section holds. Raises FileFormatError HB0625."""
    io = _list_of(_tensor, _IO_CAP)
    f = _fields(
        *(parse_canonical(data, "graph"), "graph"),
        name=_text,
        march=_march,
        memories=_memories,
        inputs=io,
        outputs=io,
        options=_cells,
        description=_text,
        tool_version=_text,
    )
    names = [t.name for t in (*f["inputs"], *f["outputs"])]
    if len({t.name for t in f["inputs"]}) != len(f["inputs"]) or len({t.name for t in f["outputs"]}) != len(
        f["outputs"]
    ):
        _refuse(f"two inputs or two outputs have one name: {names}")
    m, march = f["memories"], f["march"]
    if not 1 <= m.cores <= march.cores or m.l1m > march.l1m_bytes or m.l2m > march.l2m_bytes or m.constants > m.ddr:
        _refuse(f"it uses {m}, which {march.name} does not have")
    return f
