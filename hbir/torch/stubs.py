"""The borders of the quantised region. In a float model they hand values through."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch.ao.nn.quantized import FloatFunctional

from hbir.arguments import shown
from hbir.errors import TrainingError
from hbir.torch.fake_quant.fake_quantize import FakeQuantize, FakeQuantState
from hbir.torch.fake_quant.notices import warn_once, where
from hbir.torch.tracing.calls import Call, Ref, upstream
from hbir.torch.tracing.functional import ScopedFunctional
from hbir.torch.tracing.qtensor import Outside, QTensor, extents, latest, plain, version_of, wrapped
from hbir.torch.tracing.scopes import PATH, source_line, state
from hbir.torch.tracing.scripted import is_tracing, marked

__all__ = ["DeQuantStub", "QuantStub", "adopt"]


class QuantStub(torch.nn.Module):
    """Where a value enters the quantised region. `scale` fixes its grid, as camera inputs need (1 / 128); without it the
    scale is observed. One for each input branch.
    """

    def __init__(self, scale: float | None = None, zero_point: int | None = None, qconfig: Any = None) -> None:
        super().__init__()
        if scale is not None and not (isinstance(cast(object, scale), int | float) and scale > 0):
            raise TrainingError(
                6, f"the scale of a QuantStub is {scale!r}", lever="give a number above 0, such as 1 / 128"
            )
        if zero_point:
            raise TrainingError(
                6, f"the zero point of a QuantStub is {zero_point}", why="grids are symmetric", lever="use 0"
            )
        self.scale, self.qconfig = scale, qconfig
        self.activation_post_process: FakeQuantize | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A float tensor, as the region has it; in a float model the tensor itself."""
        fake = self.activation_post_process
        if fake is None and state.calls is None:
            return x
        path = self.__dict__.get(PATH, "")
        if not isinstance(cast(object, x), torch.Tensor) or not x.is_floating_point():
            raise TrainingError(
                7,
                f"a QuantStub is given {f'a tensor of {x.dtype}' if isinstance(cast(object, x), torch.Tensor) else shown(x)}",
                where=f"layer '{path}', {source_line()}",
                why="grids hold floats",
                lever="give a float tensor: x.float(); several arguments of a model are given as a tuple",
            )
        if state.calls is not None and _is_constant(x):
            return x
        call = Call(path or "quant", "quant", (), {}, source_line(), key=(path, 0), module=self, fake_quant=fake)
        # What has just left comes back: one rescale. So does what never left.
        x = latest(x)
        if (made := x.made if isinstance(x, QTensor) else _left(x)) is not None:
            call.arguments = (made,)
        value = plain(x)
        call.shapes = (extents(value.shape),)
        if state.calls is not None:
            call.value = x
            state.calls.append(call)
        elif state.exact is not None:
            state.exact.enter(call, value)
        elif fake is not None and fake.state is FakeQuantState.VALIDATION:
            call.value = value.detach()
        held = value if fake is None else fake(value)
        if state.watch is not None:
            state.watch(call, value, held)
        return wrapped(held, Ref(call))


class DeQuantStub(torch.nn.Module):
    """Where a value leaves the quantised region. In the state VALIDATION what leaves is what the integers give."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The floats of a tensor of the region; same shape."""
        return leave(self, x)


def leave(stub: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What a stub for leaving hands out; PyTorch's own is one, too."""
    x = latest(x)
    if not isinstance(x, QTensor):
        if state.calls is not None and _left(x) is None:
            _never_entered(stub)
        return x
    path = stub.__dict__.get(PATH, "")
    call = Call(path or "dequant", "dequant", (x.made,), {}, "", key=(path, 0), module=stub, shapes=(extents(x.shape),))
    value = plain(x)
    if state.calls is not None:
        call.source = source_line()
        state.calls.append(call)
        value = call.value = value.as_subclass(Outside)
    elif is_tracing():
        from hbir.torch.validation import standalone

        value = marked(call, value, standalone(call) if _validates(x.made) else None)
    elif state.exact is not None:
        value = state.exact.leave(call, value)
    elif _validates(x.made):
        from hbir.torch.validation import alone

        value = alone(call, value)
    else:
        value = value.view_as(value)
    setattr(value, _LEFT, (x.made, version_of(value)))
    return value


def _is_constant(x: torch.Tensor) -> bool:
    """Whether a value depends neither on the inputs nor on a buffer, in which models keep their state: parameters, say."""
    if isinstance(x, Outside) or not state.scopes:
        return False
    begin = plain(x).untyped_storage().data_ptr()
    return all(each.untyped_storage().data_ptr() != begin for each in state.scopes[0].module.buffers())


def _never_entered(stub: torch.nn.Module) -> None:
    error = TrainingError(
        17,
        "a DeQuantStub is given a value that is not quantised",
        where=where(),
        why="no QuantStub stands on its branch, or it left the region on the way: it stays float, outside of the module",
        lever="put a QuantStub where the branch begins, or take the DeQuantStub away",
    )
    warn_once(error, state.scopes[0].module if state.scopes else stub)


_LEFT = "_hbir_left"


def _validates(made: Ref) -> bool:
    """Whether the stubs that a value came through are in the state VALIDATION: a part of a model runs by itself then."""
    entered = next((call for call in upstream([made.call]) if call.kind == "quant"), None)
    fake = None if entered is None else entered.fake_quant
    return fake is not None and fake.state is FakeQuantState.VALIDATION


def _left(x: torch.Tensor) -> Ref | None:
    """The value of the region that a tensor is, when it has only just left it."""
    made, version = getattr(x, _LEFT, (None, -1))
    return made if made is not None and version_of(x) == version else None


def adopt(model: torch.nn.Module) -> None:
    """Make PyTorch's own stubs and `FloatFunctional` modules in a model those of this package; their state stays."""
    for module in model.modules():
        kind = _OURS.get(type(module))
        if kind is None:
            continue
        cast(Any, module).__class__ = kind
        if kind is QuantStub:
            module.__dict__.update(scale=None, activation_post_process=None)


_OURS: dict[type[torch.nn.Module], type[torch.nn.Module]] = {
    torch.ao.quantization.DeQuantStub: DeQuantStub,
    torch.ao.quantization.QuantStub: QuantStub,
    FloatFunctional: ScopedFunctional,
}
