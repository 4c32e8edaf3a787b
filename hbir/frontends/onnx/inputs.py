"""Shapes of a network's inputs: from the model where it states them, from the user where it does not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any, TypeAlias

from hbir.errors import ImportModelError
from hbir.frontends.onnx.errors import Refusal, check_axes
from hbir.frontends.onnx.tensors import decode_text

__all__ = ["InputShapes", "input_shape", "symbol_extents"]

InputShapes: TypeAlias = "Mapping[str, Sequence[int]]"
"""Extents of inputs by name."""

_MAX_EXTENT = 1 << 31


def _dims(value: Any) -> list[Any] | None:
    type_ = value.type.tensor_type
    return list(type_.shape.dim) if type_.HasField("shape") else None


def symbol_extents(inputs: Iterable[Any], given: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """What the user's shapes say about named extents ("batch"), which other inputs may share."""
    symbols: dict[str, int] = {}
    for value in inputs:
        dims, shape = _dims(value), given.get(value.name)
        if dims is not None and shape is not None and len(dims) == len(shape):
            for dim, extent in zip(dims, shape, strict=True):
                if dim.dim_param:
                    symbols.setdefault(decode_text(dim.dim_param, "an extent"), extent)
    return symbols


def input_shape(value: Any, given: Sequence[int] | None, symbols: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of an input. Only an unknown first extent becomes 1 by itself. Raises HB0120 to HB0122."""
    name, dims = value.name, _dims(value)
    check_axes(dims or given or (), f"input '{name}'")
    if given is not None:
        return _checked(name, dims, given)
    if dims is None:
        raise _unknown(name, "its rank is not stated", ("1", "3", "224", "224"))
    empty = next((axis for axis, dim in enumerate(dims) if dim.HasField("dim_value") and dim.dim_value == 0), None)
    if empty is not None:
        example = [str(dim.dim_value or 1) for dim in dims]
        raise _unknown(name, f"extent {empty} is stated to be 0, and no data would be left", example)
    stated = [
        dim.dim_value if dim.dim_value > 0 else symbols.get(decode_text(dim.dim_param, "an extent"), 0) for dim in dims
    ]
    if 0 in stated[1:]:
        axis = stated.index(0, 1)
        symbol = f" ('{dims[axis].dim_param}')" if dims[axis].dim_param else ""
        example = [str(extent or (1 if at == 0 else 224)) for at, extent in enumerate(stated)]
        raise _unknown(name, f"extent {axis}{symbol} is not stated", example)
    shape = tuple(extent or 1 for extent in stated)
    if max(shape, default=1) > _MAX_EXTENT:
        raise ImportModelError(
            Refusal.TOO_LARGE_TENSOR,
            f"an extent of {max(shape)} is too large",
            where=f"input '{name}'",
            lever="check the model's shapes",
        )
    return shape


def _unknown(name: str, why: str, example: Sequence[str]) -> ImportModelError:
    return ImportModelError(
        Refusal.DYNAMIC_INPUT,
        "the shape of the input is not fixed",
        where=f"input '{name}'",
        why=f"{why}; a network is compiled for one shape",
        lever=f'give it: export(…, input_shapes={{"{name}": ({", ".join(example)})}}) or '
        f"--input-shape {name}:{'x'.join(example)}",
    )


def _checked(name: str, dims: Sequence[Any] | None, given: Sequence[int]) -> tuple[int, ...]:
    where = f"input '{name}'"
    if not all(isinstance(extent, Integral) and 1 <= extent <= _MAX_EXTENT for extent in given):
        raise ImportModelError(
            Refusal.INPUT_SHAPES,
            f"{list(given)} is no shape",
            where=where,
            lever="give one whole number above zero for each axis",
        )
    shape = tuple(int(extent) for extent in given)
    if dims is not None:
        stated = [dim.dim_value for dim in dims]
        fits = len(stated) == len(shape) and all(s <= 0 or s == extent for s, extent in zip(stated, shape, strict=True))
        if not fits:
            text = ", ".join(
                str(s) if s > 0 else decode_text(dim.dim_param, "an extent") or "?"
                for s, dim in zip(stated, dims, strict=True)
            )
            raise ImportModelError(
                Refusal.INPUT_SHAPES,
                f"shape {list(shape)} contradicts the model",
                where=where,
                why=f"the model states [{text}]",
                lever="give a shape that agrees with it, or export the model again with that extent left open",
            )
    return shape
