"""AdaRound (arXiv:2004.10568): weights are rounded up or down so that each layer's output comes closest to the float one's.

Layer by layer, in the order they run: the inputs are those of the quantised model, with the layers before rounded already, the
targets those of the float model. Between 0 and 1 a variable for each weight says how far it is rounded up; a regulariser that
grows drives it to either end. The result is written into the weights, which then lie on their grids, so that nothing of this
remains in the model: it is exported, saved and trained as before.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch.func import functional_call

from hbir.errors import TrainingError
from hbir.torch.fake_quant.fake_quantize import FakeQuantize, FakeQuantState, fake_quants
from hbir.torch.fake_quant.kernels import held
from hbir.torch.tracing.qtensor import batch_norm_factor, plain
from hbir.torch.tracing.scopes import SITES, Site

__all__ = ["Reconstruction", "weight_reconstruction"]

_LOW, _HIGH = -0.1, 1.1
"""The sigmoid is stretched to these ends and cut at 0 and 1, so that it reaches both."""


@dataclass(frozen=True)
class Reconstruction:
    """What rounding did to one layer: mean square errors of its output before and after, and how many weights changed side."""

    before: float
    after: float
    changed: int


@dataclass(frozen=True)
class _Layer:
    name: str
    module: Any
    fake: FakeQuantize
    norm: torch.nn.Module | None

    def factor(self) -> torch.Tensor:
        """What the folded batch norm multiplies the weight with, in a shape that broadcasts."""
        shape = [1] * self.module.weight.dim()
        shape[self.fake.axis] = -1
        return torch.ones(1) if self.norm is None else batch_norm_factor(self.norm).detach().reshape(shape)

    def run(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """The layer's value with another weight and no bias, which would cancel."""
        bias = {} if self.module.bias is None else {"bias": torch.zeros_like(self.module.bias)}
        return cast(torch.Tensor, functional_call(self.module, {"weight": weight, **bias}, (x,)))


def weight_reconstruction(
    model: torch.nn.Module,
    data: Iterable[Any],
    *,
    layers: Sequence[str] | None = None,
    iterations: int = 500,
    batch_size: int = 32,
    learning_rate: float = 0.1,
    regularisation: float = 2.0,
    warm_up: float = 0.2,
    progress: Callable[[str, Reconstruction], None] | None = None,
) -> dict[str, Reconstruction]:
    """Round the weights of a calibrated model by AdaRound; they are changed in place, and the states stay as they are.

    `data` are arguments of the model, a few hundred samples in batches; a tuple is several arguments. `layers` limits it to
    some convolutions and linear layers. `regularisation` is in units of the error of plain rounding. A layer that would come
    out worse stays as it was. Deterministic for given data.
    Raises TrainingError HB0945 for a model that is not calibrated, for no data and for a name that is no such layer.
    """
    batches: list[tuple[Any, ...]] = [cast(Any, batch) if isinstance(batch, tuple) else (batch,) for batch in data]
    found = {layer.name: layer for layer in _layers(model)}
    _check(found, batches, layers)
    exact, results = copy.deepcopy(model), dict[str, Reconstruction]()
    with _States(model, FakeQuantState.QAT), _States(exact, FakeQuantState["_FLOAT"]):
        order = _order(model, list(found), batches[0])
        for name in [name for name in order if layers is None or name in layers]:
            inputs, wanted = _inputs(model, name, batches), _inputs(exact, name, batches)
            layer = found[name]
            results[name] = _reconstruct(
                layer,
                *(inputs, wanted),
                *(iterations, batch_size, learning_rate, regularisation, warm_up),
            )
            if progress is not None:
                progress(name, results[name])
    return results


def _layers(model: torch.nn.Module) -> Iterator[_Layer]:
    for name, module in cast("Iterable[tuple[str, Any]]", cast(Any, model).named_modules()):
        sites: dict[int, Site] = module.__dict__.get(SITES, {})
        for site in sites.values():
            fake = getattr(module, site.weight_fake_quant, None) if site.weight_fake_quant else None
            weight = dict(module.named_parameters(recurse=False)).get("weight")
            if isinstance(fake, FakeQuantize) and weight is not None:
                yield _Layer(name, module, fake, site.batch_norm[0] if site.batch_norm else None)


def _check(found: dict[str, _Layer], batches: Sequence[Any], layers: Sequence[str] | None) -> None:
    unknown = sorted(set(layers or ()) - set(found))
    if unknown or not found:
        what = (
            f"'{unknown[0]}' is no layer with a fake-quantised weight"
            if unknown
            else "no layer has a fake-quantised weight"
        )
        raise TrainingError(45, what, lever="prepare the model first; layers are " + ", ".join(sorted(found)[:10]))
    if not batches:
        raise TrainingError(45, "there are no data to reconstruct with", lever="give a few batches of inputs")
    for layer in found.values():
        if not layer.fake.calibrated:
            lever = "run calibration, or load the state dict of a calibrated model"
            raise TrainingError(45, f"the weight of '{layer.name}' has no scale yet", lever=lever)


class _States:
    """All fake quants of a model in one state, observing nothing, inside the `with`."""

    def __init__(self, model: torch.nn.Module, state: FakeQuantState) -> None:
        self.model, self.state = model, state

    def __enter__(self) -> None:
        self.modes = [(module, module.training) for module in self.model.modules()]
        self.before = [(each, each.state) for each in fake_quants(self.model)]
        self.model.eval()
        for fake, _ in self.before:
            fake.state = self.state

    def __exit__(self, *_: object) -> None:
        for module, training in self.modes:
            module.training = training
        for fake, state in self.before:
            fake.state = state


class _Reached(Exception):  # noqa: N818 - it is no error: the layer was reached, and the rest of the model need not run
    pass


def _order(model: torch.nn.Module, names: Sequence[str], args: tuple[Any, ...]) -> list[str]:
    """The layers that run, in order."""
    seen: dict[str, None] = {}

    def note(name: str) -> Callable[..., None]:
        return lambda *_: seen.setdefault(name)

    handles = [model.get_submodule(name).register_forward_pre_hook(note(name)) for name in names]
    try:
        with torch.no_grad():
            model(*args)
    finally:
        for handle in handles:
            handle.remove()
    return list(seen)


def _inputs(model: torch.nn.Module, name: str, batches: Sequence[tuple[Any, ...]]) -> torch.Tensor:
    """What a layer reads on all data, one batch behind the other."""
    seen: list[torch.Tensor] = []

    def keep(_: torch.nn.Module, args: tuple[Any, ...]) -> None:
        seen.append(plain(args[0]).detach().clone())
        raise _Reached

    handle = model.get_submodule(name).register_forward_pre_hook(keep)
    try:
        with torch.no_grad():
            for args in batches:
                try:
                    model(*args)
                except _Reached:
                    continue
    finally:
        handle.remove()
    return torch.cat(seen)


def _stretched(variable: torch.Tensor) -> torch.Tensor:
    return (torch.sigmoid(variable) * (_HIGH - _LOW) + _LOW).clamp(0, 1)


def _reconstruct(
    layer: _Layer,
    inputs: torch.Tensor,
    wanted: torch.Tensor,
    iterations: int,
    batch_size: int,
    learning_rate: float,
    regularisation: float,
    warm_up: float,
) -> Reconstruction:
    fake, factor = layer.fake, layer.factor()
    folded = layer.module.weight.detach() * factor
    shape = [1] * folded.dim()
    shape[fake.axis] = -1
    scale, limits = fake.scale.detach(), fake.dtype.limits
    scale = scale if fake.channel_axis is None else scale.reshape(shape)
    floor = torch.floor(folded / scale)
    share = (folded / scale - floor).clamp(0.01, 0.99)
    variable = torch.log((share - _LOW) / (_HIGH - share)).requires_grad_()
    with torch.no_grad():
        targets = layer.run(wanted, folded)
        nearest = held(folded, fake.scale, fake.channel_axis, limits)
        # In units of the error of plain rounding, so that the regulariser is in proportion for all layers.
        before = float((layer.run(inputs, nearest) - targets).square().mean())
    if not before:
        return Reconstruction(before, before, 0)
    optimizer: Any = torch.optim.Adam([variable], lr=learning_rate)
    generator = torch.Generator().manual_seed(0)
    begin = int(iterations * warm_up)
    for step in range(iterations):
        picked = torch.randperm(inputs.shape[0], generator=generator)[:batch_size]
        up = _stretched(variable)
        value = layer.run(inputs[picked], (floor + up).clamp(*limits) * scale)
        loss = torch.nn.functional.mse_loss(value, targets[picked]) / before
        if step >= begin:
            beta = 20 - 18 * (step - begin) / max(iterations - begin, 1)
            loss = loss + regularisation * (1 - (2 * up - 1).abs().pow(beta)).mean()
        optimizer.zero_grad()
        cast(Any, loss).backward()
        optimizer.step()
    with torch.no_grad():
        rounded = (floor + (_stretched(variable) >= 0.5)).clamp(*limits) * scale
        after = float((layer.run(inputs, rounded) - targets).square().mean())
        if after < before:
            # A channel that the batch norm multiplies with 0 has no weights to round.
            kept = torch.where(factor == 0, layer.module.weight, rounded / torch.where(factor == 0, 1.0, factor))
            layer.module.weight.copy_(kept)
            return Reconstruction(before, after, int((rounded != nearest).sum()))
    return Reconstruction(before, before, 0)
