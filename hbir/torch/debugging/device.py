"""Which operations of a prepared model no unit of the march runs: they run on the host CPU, on tensors in DDR."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from backends.nash.lower import lower
from hbir.march import load_march
from hbir.module import Function, Module
from hbir.torch.debugging.recording import checked_prepared, integers_for
from hbir.torch.debugging.tables import Table
from hbir.torch.march import get_march
from hbir.torch.tracing.scopes import PREPARED

__all__ = ["DeviceRow", "check_deploy_device", "device_table"]


@dataclass(frozen=True)
class DeviceRow:
    """One operation of the converted model."""

    layer: str
    operation: str
    unit: str
    """`TAE`, `VAE`, …; `HOST` for the CPU."""
    reason: str
    """Why it runs on the host; empty for a unit."""

    @property
    def on_host(self) -> bool:
        """Whether no unit runs it."""
        return self.unit == "HOST"


def check_deploy_device(model: Any, example_inputs: Any = None, *, march: str | None = None) -> list[DeviceRow]:
    """Where each operation of a prepared model, or of a converted module, runs; in program order.

    A prepared model needs the arguments of one call. The march is the model's own, or the one that is set. Raises TrainingError
    HB0970 for a model that is not prepared, BackendError HB05xx for a module that no binary can hold.
    """
    if isinstance(model, Module | Function):
        module = model.module if isinstance(model, Function) else model
        name = march or get_march()
    else:
        prepared = checked_prepared(model, "check_deploy_device")
        module = integers_for(prepared, example_inputs)[0].module
        name = march or str(prepared.__dict__[PREPARED])
    graph = lower(module, load_march(name))
    return [DeviceRow(node.layer, node.operation or node.opcode, node.unit, node.reason) for node in graph.nodes]


def device_table(rows: Sequence[DeviceRow]) -> Table:
    """In program order; what runs on the host is marked."""
    cells = tuple((row.layer, row.operation, row.unit, row.reason) for row in rows)
    marked = frozenset(i for i, row in enumerate(rows) if row.on_host)
    note = f"{len(marked)} of {len(rows)} operations run on the host CPU"
    return Table("deploy_device", "Devices", ("layer", "operation", "unit", "reason"), cells, note, marked)
