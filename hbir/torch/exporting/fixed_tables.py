"""The functions of a model as the integers have them: tables in fixed point, and how far each is from its function."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from hbir.dialects import quantized as q
from hbir.dialects.base import shape_of
from hbir.dialects.quant import quantized_element
from hbir.ir.locations import layer_name
from hbir.module import Function
from hbir.torch.exporting.export import check_exportable
from hbir.torch.preparing.trace import as_arguments
from hbir.torch.validation import integers_for

__all__ = ["FixedTable", "fixed_tables", "pre_export"]


@dataclass(frozen=True)
class FixedTable:
    """The table of one function."""

    layer: str
    """The user's name for it."""
    function: str
    """`sigmoid`, `exp`; empty where several were put into one table."""
    form: str
    """`table` has an entry for each int8 input, `interpolate` 513 entries and lines between them, `segmented` up to 64
    segments of 64 entries."""
    entries: int
    input_bits: int
    output_bits: int
    output_scale: float
    worst_error: float
    """The largest difference from the exactly rounded function over all inputs, in steps of the result."""


def tables_of(function: Function) -> tuple[FixedTable, ...]:
    """The tables of a converted module, in order."""
    found: list[FixedTable] = []
    for op in function.operations:
        if isinstance(op, q.TableOp | q.InterpolateOp | q.SegmentedOp):
            table: Any = op.entries if isinstance(op, q.SegmentedOp) else op.table
            give, take = quantized_element(op.input.type), quantized_element(op.output.type)
            # A table with an entry for each input holds the rounded function itself.
            error = 0.0 if isinstance(op, q.TableOp) else op.values["worst_error"] or 0.0
            entries = torch.Size(shape_of(table.type)).numel()
            name, form = op.values.get("function") or "", op.name.removeprefix("quantized.")
            found.append(FixedTable(layer_name(op), name, form, entries, give.bits, take.bits, take.scale, error))
    return tuple(found)


def fixed_tables(model: torch.nn.Module, example_inputs: Any) -> tuple[FixedTable, ...]:
    """The tables that the functions of a prepared model become, in the order of the model.

    The model is in evaluation mode and in the state VALIDATION, and calibrated; otherwise what `export` raises is raised.
    """
    check_exportable(model)
    return tables_of(integers_for(model, as_arguments(example_inputs)))


def pre_export(model: torch.nn.Module, inplace: bool = False) -> torch.nn.Module:
    """A copy of a prepared model (with `inplace` the model itself) that shows its tables.

    Its forward reads the tables made fixed-point, as that of every model in the state VALIDATION does here: what it gives
    is what `export` and `convert` give, bit for bit. Behind its first run, `fixed_tables` is the tuple of its tables, each with
    its largest error. Raises what `export` raises for a model in another state.
    """
    check_exportable(model)
    work = model if inplace else copy.deepcopy(model)
    handle = work.register_forward_hook(_noted, with_kwargs=True)
    work.__dict__[_HANDLE] = handle.remove
    return work


_HANDLE = "_hbir_pre_export"


def _noted(model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], _: Any) -> None:
    remove: Callable[[], None] | None = model.__dict__.pop(_HANDLE, None)
    if remove is not None:
        remove()
        model.__dict__["fixed_tables"] = tables_of(integers_for(model, args, kwargs))
