"""Tensors inside the quantised region. They hold floats, and know which call made them.

A function of PyTorch that is given such a tensor comes here first. It is looked up among the operations; the result is held to
the grid that `prepare` gave this place, and becomes such a tensor again. What has no entry is refused with the user's line.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch

from hbir.errors import TrainingError
from hbir.torch.fake_quant.fake_quantize import FakeQuantize
from hbir.torch.fake_quant.kernels import bounded
from hbir.torch.fake_quant.notices import warn_once
from hbir.torch.operations import Kind, Operation, lookup
from hbir.torch.tracing.calls import Call, Ref, replaced
from hbir.torch.tracing.scopes import KNOWN, SITES, Scope, Site, current, source_line, state
from hbir.torch.tracing.scripted import is_tracing

__all__ = ["Outside", "QTensor", "extents", "latest", "plain", "version_of", "wrapped"]


class Outside(torch.Tensor):
    """A tensor that depends on the model's inputs and is not quantised; used while a model is traced."""

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if state.calls is not None and getattr(func, "__name__", "") in _LOOKS:
            _looked()
        return cast(Any, super()).__torch_function__(func, tuple(types), tuple(args), dict(kwargs or {}))


_LOOKS = frozenset({"__bool__", "__float__", "__index__", "__int__", "item", "tolist"})
"""Functions by which Python learns what a tensor holds."""


def _looked() -> None:
    error = TrainingError(
        14,
        "the model looks at a value that depends on its input",
        where=_where(),
        why="what it decides by it is decided once, for the example: the integers have one path",
        lever="decide outside of the model, or compute both ways and choose between their results behind the DeQuantStub",
    )
    warn_once(error, state.scopes[0].module)


class QTensor(Outside):
    """A tensor inside the quantised region."""

    made: Ref
    version: int
    """How often the values had been changed in place when the call made them."""

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return _dispatch(func, tuple(args), dict(kwargs or {}))


_torch: Any = torch
# Functions on such tensors are those on plain ones in this context.
_undisturbed: Any = vars(torch)["_C"].DisableTorchFunctionSubclass


def wrapped(tensor: torch.Tensor, made: Ref) -> QTensor:
    """A tensor as the result of a call."""
    result = tensor.as_subclass(QTensor)
    result.made, result.version = made, version_of(tensor)
    return result


def extents(size: torch.Size) -> tuple[int, ...]:
    """Extents as numbers. Under `torch.jit.trace` they are tensors, and PyTorch warns of what is meant here: they stay."""
    if not is_tracing():
        return tuple(size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", _torch.jit.TracerWarning)
        return tuple(map(int, size))


def version_of(tensor: torch.Tensor) -> int:
    """How often a tensor was changed in place; under `inference_mode` nobody counts."""
    with _undisturbed():
        return 0 if tensor.is_inference() else tensor._version


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """The floats of a tensor, without what it knows of the region."""
    if type(tensor) is torch.Tensor or isinstance(tensor, torch.nn.Parameter):
        return tensor
    with _undisturbed():
        return tensor.as_subclass(torch.Tensor)


def _plain_leaf(value: Any) -> Any:
    return plain(value) if isinstance(value, Outside) else value


def _has_tensor(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return any(map(_has_tensor, cast("Sequence[Any]", value)))
    return isinstance(value, torch.Tensor)


def latest(leaf: Any) -> Any:
    """What a tensor stands for: the result of the last operation that ran on it in place."""
    while isinstance(leaf, QTensor) and (became := leaf.__dict__.get(_BECAME)) is not None:
        leaf = became
    return leaf


_BECAME = "_hbir_became"


def _in_place(func: Callable[..., Any], kwargs: Mapping[str, Any]) -> bool:
    name = getattr(func, "__name__", "")
    return bool(kwargs.get("inplace")) or (name.endswith("_") and not name.endswith("__"))


def _dispatch(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    args, kwargs = replaced(args, latest), replaced(kwargs, latest)
    result = _run(func, args, kwargs)
    if _in_place(func, kwargs) and args and isinstance(args[0], QTensor) and isinstance(result, QTensor):
        # `x.add_(y)` alone: whoever reads x from here on means the result. Views of x are told by the count of changes.
        old, new = plain(args[0]), plain(result)
        if state.calls is not None and version_of(old) == args[0].version and old.data_ptr() != new.data_ptr():
            old.copy_(new)
        setattr(args[0], _BECAME, result)
    return result


def _run(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    found = lookup(func)
    if kwargs.get("out") is not None:
        raise TrainingError(
            51,
            f"{_shown(func)} writes its result into a given tensor",
            where=_where(),
            why="a tensor of the region is what its operation gave",
            lever="leave out= away",
        )
    if found is None:
        with _undisturbed():
            result = func(*replaced(args, _plain_leaf), **replaced(kwargs, _plain_leaf))
        # Shapes, dtypes and devices are asked for freely.
        if isinstance(result, torch.Size):
            return torch.Size(extents(result))
        if not _has_tensor(result):
            return result
        raise TrainingError(
            10,
            f"{_shown(func)} has no quantised form",
            where=_where(),
            why="every operation between QuantStub and DeQuantStub becomes integer arithmetic",
            lever="write it with supported operations (hbir.torch.operations lists them), or move it behind a DeQuantStub",
        )
    if found.kind is Kind.COMPOSITE:
        return found.function(*args, **kwargs)
    if found.kind is Kind.SAME:
        with _undisturbed():
            result = func(*replaced(args, _plain_leaf), **replaced(kwargs, _plain_leaf))
        return wrapped(result, cast(QTensor, args[0]).made)
    return _called(found, func, args, kwargs)


def _shown(func: Callable[..., Any]) -> str:
    return f"'{getattr(func, '__name__', func)}'"


def _where(name: str = "") -> str:
    scope = current()
    path = name or (scope.path if scope is not None else "")
    line = source_line()
    return f"layer '{path}', {line}" if path else line


def _called(found: Operation, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    scope = current()
    site, name, key = None, found.name, ("", -1)
    if scope is not None:
        key, site = (scope.path, scope.count), _site(scope, found)
        scope.count += 1
        name = site.name if site is not None else f"{scope.path}.{found.name}_{key[1]}".lstrip(".")
    call = Call(name, found, (), {}, "", key=key, module=None if scope is None else scope.module)
    if state.calls is not None:
        call.source = source_line()
    call.arguments, call.keywords = (replaced(part, partial(_argument, call=call)) for part in (args, kwargs))
    if state.exact is not None:
        state.exact.step(call)
    given, named = replaced(args, _plain_leaf), replaced(kwargs, _plain_leaf)
    if site is not None and site.inputs and scope is not None:
        given, named = _held(args, kwargs, site, scope.module, call)
    if found.name in _STEEP and state.calls is None and torch.is_grad_enabled():
        given = replaced(given, bounded)
    with _undisturbed():
        if site is not None and found.kind is Kind.WEIGHTED and site.weight_fake_quant and scope is not None:
            result = _weighted(func, given, named, site, scope.module, call)
        else:
            result = func(*given, **named)
        before = result
        if site is not None:
            call.folded, call.summed = site.folded, site.summed
            if site.fake_quant and scope is not None:
                call.fake_quant = cast(FakeQuantize, scope.module.get_submodule(site.fake_quant))
                result = call.fake_quant(result)
        if state.watch is not None:
            state.watch(call, before, result)
    if state.calls is not None:
        state.calls.append(call)
    elif found.kind is Kind.PLAIN and state.exact is not None:
        call.shapes = (extents(result.shape),)
        result = state.exact.leave(call, result)
    return _results(result, call)


_STEEP = frozenset({"log", "log10", "log1p", "log2", "pow", "reciprocal", "rsqrt", "sqrt"})
"""Functions with points of infinite slope. Grids have such points where floats hardly ever do: 0 is one of their values."""


def _held(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    site: Site,
    module: torch.nn.Module,
    call: Call,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The operands, where the site says so held to grids of their own."""
    call.inputs = {number: cast(FakeQuantize, module.get_submodule(name)) for number, name in site.inputs}
    order = itertools.count()

    def change(leaf: Any) -> Any:
        if not isinstance(leaf, QTensor):
            return _plain_leaf(leaf)
        number = next(order)
        held = plain(leaf)
        return call.inputs[number](held) if number in call.inputs else held

    return replaced(args, change), replaced(kwargs, change)


def _results(result: Any, call: Call) -> Any:
    """The tensors of a result as those of the region. Integers and booleans are not quantised, and leave it."""
    found = [result] if isinstance(result, torch.Tensor) else list(result)
    call.shapes = tuple(extents(tensor.shape) for tensor in found)
    made = [
        wrapped(tensor, Ref(call, index)) if tensor.is_floating_point() else _left_alone(tensor, call)
        for index, tensor in enumerate(found)
    ]
    if isinstance(result, torch.Tensor):
        return made[0]
    return type(result)(made) if hasattr(result, "_fields") else tuple(made) if isinstance(result, tuple) else made


def _left_alone(tensor: torch.Tensor, call: Call) -> torch.Tensor:
    """Integers leave the region."""
    if state.calls is None:
        return tensor
    call.value = tensor.as_subclass(Outside)
    return call.value


def _argument(leaf: Any, call: Call) -> Any:
    if isinstance(leaf, QTensor):
        if state.calls is not None and leaf.version != version_of(leaf):
            raise TrainingError(
                13,
                f"{call.kind} reads a tensor that was changed in place through another one",
                where=_where(call.name),
                why=f"'{leaf.made.call.name}' made it, and a part or another form of it was written to",
                lever="write the operation out of place: x = x + y, ReLU(inplace=False)",
            )
        return leaf.made
    if isinstance(leaf, Outside):
        raise TrainingError(
            11,
            f"{call.kind} takes a tensor that is not quantised",
            where=_where(call.name),
            why="it depends on the model's inputs, and did not pass a QuantStub",
            lever="put a QuantStub on that branch too"
            if leaf.is_floating_point()
            else f"make a float of it in front of a QuantStub, or use it behind the DeQuantStub: {leaf.dtype} has no grid",
        )
    return leaf


def _site(scope: Scope, found: Operation) -> Site | None:
    sites = scope.module.__dict__.get(SITES)
    if sites is None:
        if KNOWN in state.scopes[0].module.__dict__:
            _unknown(found)
        return None
    site = sites.get(scope.count)
    if site is None or site.operation != found.name:
        known = (
            f"{site.operation} ({site.source}) stood there" if site is not None else "there was no further operation"
        )
        raise TrainingError(
            12,
            f"{found.name} runs where another operation ran when the model was prepared",
            where=_where(scope.path),
            why=known,
            lever="keep the order of operations the same for all inputs, in training and in evaluation; do not change the"
            " model behind prepare; move what depends on data behind the DeQuantStub",
        )
    return site


def _unknown(found: Operation) -> None:
    error = TrainingError(
        16,
        f"{found.name} runs in a layer that did not run when the model was prepared",
        where=_where(),
        why="nothing quantises it, in training either",
        lever="let it run in evaluation too, or move it behind the DeQuantStub where only the loss needs it",
    )
    warn_once(error, state.scopes[0].module)


def _weighted(
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    site: Site,
    module: torch.nn.Module,
    call: Call,
) -> torch.Tensor:
    """A layer on its fake-quantised weight; with a batch norm behind it, on what the folded weight will be."""
    fake = call.weight_fake_quant = cast(FakeQuantize, module.get_submodule(site.weight_fake_quant))
    norm = call.batch_norm = site.batch_norm[0] if site.batch_norm else None
    first = dict(zip(("input", "weight", "bias"), args, strict=False))
    named = {"bias": None, **first, **kwargs}
    x, weight, bias = (cast(Any, named.pop(key)) for key in ("input", "weight", "bias"))
    if norm is None:
        return func(x, fake(weight), bias, *args[3:], **named)
    factor = batch_norm_factor(norm)
    shape = [1] * weight.dim()
    shape[fake.axis] = -1
    factor = factor.reshape(shape)
    # The norm that follows multiplies again. Weights are divided and not results, of which there are more.
    return func(x, fake(weight * factor) / torch.where(factor == 0, 1.0, factor), bias, *args[3:], **named)


def batch_norm_factor(norm: torch.nn.Module) -> torch.Tensor:
    """What a batch norm multiplies each channel with, of its running statistics: gamma / sqrt(variance + epsilon)."""
    layer = cast(torch.nn.BatchNorm2d, norm)
    variance = cast(torch.Tensor, layer.running_var)
    root = torch.rsqrt(variance + layer.eps)
    weight = cast("torch.Tensor | None", layer.weight)
    return root if weight is None else weight * root
