"""Modules that run several times, and what stands behind a layer and could not be computed along with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch

from hbir.torch.debugging.recording import is_prepared, ready, run
from hbir.torch.debugging.tables import Table
from hbir.torch.operations.registry import Kind, Operation
from hbir.torch.tracing.calls import Call, operands
from hbir.torch.tracing.fusion import fused_groups
from hbir.torch.tracing.scopes import PATH

__all__ = [
    "CalledModule",
    "UnfusedOperation",
    "called_table",
    "check_unfused_operations",
    "get_module_called_count",
    "unfused_table",
]

_ACTIVATIONS = frozenset({"relu", "relu6", "hardtanh", "clamp"})
_LATE = frozenset({"batch_norm"})
_FOLLOWERS = _ACTIVATIONS | _LATE | {"add"}


@dataclass(frozen=True)
class CalledModule:
    """How often a module ran in one call of the model."""

    name: str
    kind: str
    """Its class."""
    count: int

    @property
    def shared(self) -> bool:
        """Whether one set of weights and one scale serve several places."""
        return self.count > 1


@dataclass(frozen=True)
class UnfusedOperation:
    """A batch norm, sum or activation behind a layer, which is computed, and rounded, by itself."""

    layer: str
    operation: str
    kind: str
    source: str
    reason: str


def get_module_called_count(model: Any, example_inputs: Any) -> list[CalledModule]:
    """How often each innermost module of a float or prepared model runs on the arguments of one call, in the model's order.

    0 means that a module was declared and never ran. Raises TrainingError HB0970 for what is no model.
    """
    work = ready(model)
    counts: dict[str, int] = {}

    def count(module: torch.nn.Module, *_: Any) -> None:
        path = module.__dict__.get(PATH, "")
        counts[path] = counts.get(path, 0) + 1

    modules = cast("list[tuple[str, torch.nn.Module]]", list(cast(Any, work).named_modules()))
    leaves: dict[str, torch.nn.Module] = {path: module for path, module in modules if path and _is_leaf(module)}
    handles: list[Any] = [cast(Any, module).register_forward_pre_hook(count) for module in leaves.values()]
    try:
        found, _ = run(work, example_inputs)
    finally:
        for handle in handles:
            handle.remove()
    # A FloatFunctional has no forward; its methods are calls.
    calls: dict[tuple[str, int], int] = {}
    for call in found.calls:
        calls[call.key] = calls.get(call.key, 0) + 1
    for (path, _), number in calls.items():
        counts[path] = max(counts.get(path, 0), number)
    return [CalledModule(path, type(module).__name__, counts.get(path, 0)) for path, module in leaves.items()]


_OWN = ("activation_post_process", "weight_fake_quant", "input_fake_quant_", "_generated_")


def _is_leaf(module: torch.nn.Module) -> bool:
    """Whether a module is the user's, and holds no other of the user's."""
    path = str(module.__dict__.get(PATH, ""))
    return PATH in module.__dict__ and not any(part in path for part in _OWN) and not _children(module)


def _children(module: torch.nn.Module) -> list[str]:
    return [name for name, _ in module.named_children() if not name.startswith(_OWN)]


def check_unfused_operations(model: Any, example_inputs: Any) -> list[UnfusedOperation]:
    """What follows a layer and is not fused with it, and why; of a prepared model, or of a float one as `prepare` would see it.

    Raises TrainingError HB0970 for what is no model.
    """
    found, _ = run(ready(model), example_inputs)
    return unfused(found.calls, prepared=is_prepared(model))


def unfused(calls: Sequence[Call], *, prepared: bool) -> list[UnfusedOperation]:
    """The rows of a traced run."""
    readers: dict[Call, list[Call]] = {}
    runs: dict[tuple[str, int], int] = {}
    for call in calls:
        runs[call.key] = runs.get(call.key, 0) + 1
        for ref in operands((call.arguments, call.keywords)):
            readers.setdefault(ref.call, []).append(call)
    groups = {member: group for group in fused_groups(calls) for member in group.members}
    found: dict[tuple[Any, Any], UnfusedOperation] = {}
    for layer in calls:
        if not (isinstance(layer.operation, Operation) and layer.operation.kind is Kind.WEIGHTED):
            continue
        last, done = layer, [layer.kind]
        while True:
            # Behind the activation nothing joins any more; a batch norm there was often meant for the layer.
            wanted = _LATE if last.kind in _ACTIVATIONS else _FOLLOWERS
            follower = next((each for each in readers.get(last, []) if each.kind in wanted), None)
            if follower is None or (follower.kind == "add" and _is_constant_sum(follower)):
                break
            possible = layer in groups and groups.get(follower) is groups[layer]
            joined = possible and (not prepared or follower.folded or last.fake_quant is None)
            if not joined:
                if follower.kind != "add" or follower not in groups:
                    reason = _HAND if possible else _reason(layer, last, follower, readers[last], runs, done)
                    row = UnfusedOperation(layer.name, follower.name, follower.kind, follower.source, reason)
                    found.setdefault((layer.key, follower.key), row)
                break
            last, done = follower, [*done, follower.kind]
    return list(found.values())


_HAND = "PrepareMethod.EAGER fuses what fuse_modules fused: name both there, or prepare with PrepareMethod.JIT_STRIP"


def _is_constant_sum(call: Call) -> bool:
    """A sum with a number is no sum of two maps."""
    return len(list(operands((call.arguments, call.keywords)))) < 2


def _reason(
    layer: Call,
    last: Call,
    follower: Call,
    readers: Sequence[Call],
    runs: dict[tuple[str, int], int],
    done: Sequence[str],
) -> str:
    between = f"a {done[-1]} stands between: the order is layer, batch norm, sum, activation"
    if last.kind in _ACTIVATIONS:
        return between
    if len(readers) > 1:
        others = ", ".join(f"'{each.name}'" for each in dict.fromkeys(readers) if each is not follower) or "itself"
        return f"the value of '{last.name}' is read by {others} too, so it must be there by itself"
    if follower.kind == "batch_norm":
        for call in (layer, follower):
            if runs[call.key] > 1:
                return f"'{call.name}' runs {runs[call.key]} times: its weights cannot be changed for one of the runs"
        if len(done) > 1:
            return between
        return "the weight has no scale for each channel of the batch norm"
    if follower.kind == "add":
        shapes = [ref.shape for ref in operands((follower.arguments, follower.keywords))]
        if len(set(shapes)) > 1:
            return f"the operands have the shapes {' and '.join(map(str, shapes))}: one is repeated"
        if layer.kind not in ("conv", "linear"):
            return f"a {layer.kind} takes no sum"
    return f"{between}; or the sum belongs to another layer"


def called_table(rows: Sequence[CalledModule]) -> Table:
    """In the model's order; shared modules and those that never ran are marked."""
    cells = tuple((row.name, row.kind, row.count, _remark(row)) for row in rows)
    marked = frozenset(i for i, row in enumerate(rows) if row.count != 1)
    return Table(
        "called_times", "Each module called times:", ("name", "class", "called", "remark"), cells, marked=marked
    )


def _remark(row: CalledModule) -> str:
    if row.shared:
        return "shared: one scale for all its runs"
    return "" if row.count else "never ran on these inputs"


def unfused_table(rows: Sequence[UnfusedOperation]) -> Table:
    """In the order of the layers."""
    cells = tuple((row.layer, row.operation, row.kind, row.source, row.reason) for row in rows)
    columns = ("layer", "not fused", "operation", "source", "reason")
    return Table("unfused", "Fusable modules are listed below:", columns, cells, marked=frozenset(range(len(rows))))
