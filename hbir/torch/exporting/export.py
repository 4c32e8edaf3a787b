"""From a prepared model to a module, with the pytrees of its inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch.utils import _pytree as pytree
from xdsl.dialects.builtin import DenseArrayBase, StringAttr, i64

from hbir.arguments import shown
from hbir.errors import TrainingError
from hbir.module import Function, Module
from hbir.torch.exporting.build import build_module
from hbir.torch.exporting.pytrees import CONSTANTS, Form, read, unknown, written
from hbir.torch.fake_quant.fake_quantize import FakeQuantize, FakeQuantState, fake_quants
from hbir.torch.preparing.trace import Trace, as_arguments, live, trace
from hbir.torch.tracing.calls import Call, enters_region, leaves_region
from hbir.torch.tracing.scopes import PREPARED

__all__ = ["check_exportable", "export", "get_hbir_input_flattener", "get_hbir_output_unflattener"]

INPUTS, OUTPUTS, ORDER = "hbir.inputs", "hbir.outputs", "hbir.input_leaves"


def export(
    model: torch.nn.Module,
    example_inputs: Any,
    *,
    name: str = "forward",
    input_names: Any = None,
    output_names: Any = None,
    input_descs: Any = None,
    output_descs: Any = None,
    native_pytree: bool = True,
) -> Module:
    """The module of a prepared model: float operations and `qat.fake_quant`, which `convert` turns into integers.

    The model must be in evaluation mode and in the state VALIDATION. Inputs are what enters the QuantStubs, outputs what leaves
    the DeQuantStubs and the integers that leave without one. Names and descriptions follow the pytrees of the model's inputs
    and outputs, or are lists of as many texts; by default inputs are `_input_0` and so on. The module remembers the pytrees
    (`get_hbir_input_flattener`), which are PyTorch's: `native_pytree` is there for scripts that pass it.
    Raises TrainingError HB0922 for a model in a wrong state, HB0925 for one without any calibrated scale, HB0920 for what has
    no form, HB0921 for names that do not fit.
    """
    del native_pytree
    check_exportable(model)
    found = trace(model, as_arguments(example_inputs))
    calls = live(found.calls)
    entering = [call for call in calls if enters_region(call)]
    leaving = _in_order(found, [call for call in calls if leaves_region(call)])
    module = build_module(
        name,
        calls,
        _texts(input_names, len(entering), "input"),
        _texts(output_names, len(leaving), "output"),
        leaving,
    )
    function = module[0]
    for given, arguments, kind in (
        (input_descs, function.flatten_inputs, "input"),
        (output_descs, function.flatten_outputs, "output"),
    ):
        if given is not None:
            for argument, text in zip(arguments, _listed(given, len(arguments), f"{kind}_descs"), strict=True):
                argument.desc = text
    _remember(function, found, entering, leaving)
    return module


def _in_order(found: Trace, leaving: Sequence[Call]) -> list[Call]:
    """What leaves the region in the order of the model's outputs; what the model goes on with comes behind."""
    returned = [call for leaf in found.results if (call := found.left_at(leaf)) in leaving]
    first = list(dict.fromkeys(call for call in returned if call is not None))
    return [*first, *(call for call in leaving if call not in first)]


def check_exportable(model: torch.nn.Module) -> None:
    """Refuse a model that is not prepared or in another state (HB0922), or whose scales are all uncalibrated (HB0925)."""
    if PREPARED not in getattr(model, "__dict__", {}):
        what = f"{shown(type(model).__name__)} is no prepared model"
        raise TrainingError(22, what, why="a float model has no scales", lever="export what `prepare` returned")
    fakes = fake_quants(model)
    # A model that was prepared in eval(), and loaded what calibration or training found, means what it will be validated for.
    states = {fake.state for fake in fakes if fake.state_given or not fake.calibrated}
    if model.training or not fakes or not states <= {FakeQuantState.VALIDATION}:
        raise TrainingError(
            22,
            "the model is in training mode" if model.training else f"the model's state is {_shown(states)}",
            why="the module would not compute what was validated",
            lever="call model.eval(), then set_fake_quantize(model, FakeQuantState.VALIDATION), and export then",
        )
    _check_scales(fakes)


def _check_scales(fakes: Sequence[FakeQuantize]) -> None:
    observed = [fake for fake in fakes if not fake.fixed]
    if observed and not any(fake.calibrated for fake in observed):
        raise TrainingError(
            25,
            "no scale of the model was ever calibrated: they are all 1",
            why="the module would compute with grids that nobody chose",
            lever="calibrate or train the prepared model first, or load the state dict of one that was",
        )


def _shown(states: set[FakeQuantState]) -> str:
    return " and ".join(sorted(state.name for state in states)) or "that of a model without fake quantisation"


def _listed(given: Any, count: int, what: str) -> list[str]:
    leaves = [given] if isinstance(given, str) else pytree.tree_leaves(given)
    if len(leaves) != count or not all(isinstance(leaf, str) and leaf for leaf in leaves):
        lever = f"give {count} texts, in a list or in the form of the model's own {what.partition('_')[0]}s"
        raise TrainingError(21, f"{what} is {given!r}", why=f"there are {count}", lever=lever)
    return leaves


def _texts(given: Any, count: int, kind: str) -> list[str] | None:
    if given is None:
        return None
    names = _listed(given, count, f"{kind}_names")
    if len(set(names)) != len(names):
        raise TrainingError(21, f"{kind}_names is {given!r}", why="a name appears twice", lever="give different names")
    return names


def _remember(function: Function, found: Trace, entering: Sequence[Call], leaving: Sequence[Call]) -> None:
    """Keep the pytrees, where the inputs and outputs of the model are those of the function."""
    attributes = function.op.attributes
    places = [found.place_of(call.value) for call in entering]
    computed = [call.name for call, place in zip(entering, places, strict=True) if place is None]
    if computed:
        reason = f"the QuantStub '{computed[0]}' is given what the model computes of its inputs"
        attributes[INPUTS] = StringAttr(unknown(reason))
    else:
        attributes[INPUTS] = StringAttr(written(found.inputs))
        attributes[ORDER] = DenseArrayBase.from_list(i64, [place for place in places if place is not None])
    order, constants = list[int](), list[Any]()
    for number, leaf in enumerate(found.results):
        call = found.left_at(leaf)
        if call in leaving:
            order.append(leaving.index(call))
        elif type(leaf) in CONSTANTS:
            order.append(_CONSTANT)
            constants.append(leaf)
        else:
            attributes[OUTPUTS] = StringAttr(unknown(f"output {number} of type {_why_unknown(leaf)}"))
            return
    attributes[OUTPUTS] = StringAttr(written(found.outputs, constants))
    attributes[f"{OUTPUTS}_order"] = DenseArrayBase.from_list(i64, order)


def _why_unknown(leaf: Any) -> str:
    if isinstance(leaf, torch.Tensor):
        return "Tensor is computed behind the stubs, or went through none"
    return f"{type(leaf).__name__} is no tensor, and nothing that text could hold"


_CONSTANT = -1
"""In the order of outputs: no result of the module, but the next constant."""


def _function(module: Module | Function) -> Function:
    return module[0] if isinstance(module, Module) else module


def _form(function: Function, key: str, order: str, what: str) -> tuple[Form, list[int]]:
    """A form that a module remembers, and where its leaves are found among the function's values."""
    attribute, places = function.op.attributes.get(key), function.op.attributes.get(order)
    found = read(attribute.data) if isinstance(attribute, StringAttr) else "the module is no export of a prepared model"
    if isinstance(found, str):
        raise _unknown(what, found)
    if not isinstance(places, DenseArrayBase) or cast(Any, places).elt_type != i64:
        raise _unknown(what, "the order of its leaves is missing")
    return found, [int(number) for number in places.get_values()]


def _unknown(what: str, why: str) -> TrainingError:
    return TrainingError(
        23,
        f"the module does not know the form of its model's {what}",
        why=why,
        lever="feed the module's arguments by name, and take its results in their order; what the model computes outside of its"
        " stubs is to be done outside of the module",
    )


def get_hbir_input_flattener(module: Module | Function) -> Callable[..., tuple[Any, ...]]:
    """The function that makes of the model's arguments the module's inputs, in their order: `module[0](*flattener(x))`.

    Raises TrainingError HB0923 for a module that does not know, HB0926 for a namedtuple whose class is not to be had; the
    function raises HB0924 for arguments of another form.
    """
    form, order = _form(_function(module), INPUTS, ORDER, "inputs")
    spec = form.spec
    if not all(0 <= number < spec.num_leaves for number in order):
        raise _unknown("inputs", "the order of its leaves is that of another module")

    def flatten(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
        leaves, given = pytree.tree_flatten((args, kwargs))
        if given != spec and len(args) == 1 and isinstance(args[0], tuple):
            leaves, given = pytree.tree_flatten((args[0], kwargs))
        if given != spec:
            lever = "give what the model's forward takes"
            raise TrainingError(24, f"the arguments have the form {given}", why=f"the model takes {spec}", lever=lever)
        return tuple(leaves[number] for number in order)

    return flatten


def get_hbir_output_unflattener(module: Module | Function) -> Callable[[Sequence[Any]], Any]:
    """The function that gives the module's results, as torch tensors, the form of the model's.

    None, numbers and strings among the outputs are what they were when the model was exported. Raises TrainingError HB0923 for
    a module that does not know, HB0926 for a namedtuple whose class is not to be had.
    """
    form, order = _form(_function(module), OUTPUTS, f"{OUTPUTS}_order", "outputs")
    count = len(_function(module).flatten_outputs)
    if (
        len(order) != form.spec.num_leaves
        or not all(_CONSTANT <= number < count for number in order)
        or order.count(_CONSTANT) != len(form.constants)
    ):
        raise _unknown("outputs", "the order of its leaves is that of another module")

    def unflatten(results: Sequence[Any] | Mapping[str, Any]) -> Any:
        flat = list(results.values()) if isinstance(results, Mapping) else list(results)
        tensors = [each if isinstance(each, torch.Tensor) else torch.as_tensor(np.asarray(each)) for each in flat]
        constants = iter(form.constants)
        leaves = [next(constants) if number == _CONSTANT else tensors[number] for number in order]
        return pytree.tree_unflatten(leaves, form.spec)

    return unflatten
