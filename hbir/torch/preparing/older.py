"""The older interface: `prepare_qat`, `prepare_qat_fx`, `convert`, `check_model`, `compile_model`."""

from __future__ import annotations

import copy
import os
import weakref
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch

import backends
import passes
from hbir.errors import TrainingError
from hbir.ir.locations import layer_name
from hbir.module import Module
from hbir.torch.exporting.build import build_module
from hbir.torch.fake_quant.fake_quantize import FakeQuantState, set_fake_quantize
from hbir.torch.march import get_march
from hbir.torch.preparing.prepare import PrepareMethod, prepare
from hbir.torch.preparing.trace import as_arguments, live, trace
from hbir.torch.tracing.calls import leaves_region, upstream
from hbir.torch.tracing.scopes import PREPARED
from hbir.torch.tracing.scripted import calls_of
from passes.common.analysis import is_float, keeps_grid

__all__ = ["check_model", "compile_model", "convert", "prepare_qat", "prepare_qat_fx"]


def prepare_qat(model: torch.nn.Module, mapping: Any = None, inplace: bool = False, **unknown: Any) -> torch.nn.Module:
    """A copy of a model for training, of modules alone (`PrepareMethod.EAGER`): what is fused was fused by `fuse_modules`, and
    the attributes `qconfig` say what is quantised how. Its fake quantisation is placed when it first runs.

    `mapping` is there for scripts that pass it, and must be None. Raises what `prepare` raises.
    """
    _refuse_options({**({} if mapping is None else {"mapping": mapping}), **unknown})
    return _placed(prepare(model, method=PrepareMethod.EAGER), model, inplace)


def prepare_qat_fx(
    model: torch.nn.Module,
    qconfig_dict: Mapping[str, Any] | None = None,
    example_inputs: Any = None,
    **unknown: Any,
) -> torch.nn.Module:
    """A copy of a model for training, fused by its graph (`PrepareMethod.SYMBOLIC`).

    `qconfig_dict` is `{"": qconfig, "module_type": {type: qconfig}, "module_name": {name: qconfig}}`, the latter two as
    lists of pairs as well. Each overrides those before it, and attributes `qconfig` of the model override all of them; one
    holds for its module and all below it, and None means: not quantised. Without example inputs the graph is taken when the
    model first runs. Raises TrainingError HB0982 for anything else, HB0983 for options, and what `prepare` raises.
    """
    _refuse_options(unknown)
    work = copy.deepcopy(model)
    for name, qconfig in _chosen(work, qconfig_dict or {}).items():
        module = work.get_submodule(name)
        if module.__dict__.get("qconfig") is None:
            module.__dict__["qconfig"] = qconfig
    return prepare(work, example_inputs, method=PrepareMethod.SYMBOLIC)


def _chosen(model: torch.nn.Module, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a qconfig_dict says of the modules that it means, by their names."""
    unknown = sorted(set(given) - {"", "module_type", "module_name"})
    if unknown:
        lever = 'use "", "module_type" and "module_name"'
        raise TrainingError(82, f"qconfig_dict has the key '{unknown[0]}'", lever=lever)
    found: dict[str, Any] = {"": given[""]} if "" in given else {}
    modules = dict(cast("Iterable[tuple[str, torch.nn.Module]]", model.named_modules()))
    types = _pairs(given, "module_type")
    found.update({name: types[type(module)] for name, module in modules.items() if type(module) in types})
    names = _pairs(given, "module_name")
    for name in names:
        if name not in modules:
            what = f"qconfig_dict names '{name}', which the model does not have"
            raise TrainingError(82, what, lever="use names of model.named_modules()")
    return {**found, **names}


def _pairs(given: Mapping[str, Any], key: str) -> dict[Any, Any]:
    """A part of a qconfig_dict, a dictionary or pairs."""
    part = given.get(key, {})
    try:
        return dict(part)
    except (TypeError, ValueError):
        lever = f"give {{{key.removeprefix('module_')}: qconfig}}, or a list of pairs of both"
        raise TrainingError(82, f"{key} of qconfig_dict is {part!r}", lever=lever) from None


def _refuse_options(unknown: Mapping[str, Any]) -> None:
    if unknown:
        what = f"there is no option '{min(unknown)}'"
        raise TrainingError(
            83, what, lever="leave it out; rules for dtypes are given to hbir.torch.quantization.prepare"
        )


def _placed(prepared: torch.nn.Module, model: torch.nn.Module, inplace: bool) -> torch.nn.Module:
    if not inplace:
        return prepared
    model.__class__, model.__dict__ = prepared.__class__, prepared.__dict__
    hooks: dict[int, Any] = cast(Any, model)._load_state_dict_pre_hooks
    for hook in hooks.values():
        # They know their module, and that is another object now.
        hook.module = weakref.ref(model)
    return model


def convert(model: torch.nn.Module, mapping: Any = None, inplace: bool = False, **unknown: Any) -> torch.nn.Module:
    """A copy of a prepared model that computes what its integers give, for evaluation and for `torch.jit.trace`.

    It stays a model of PyTorch, in evaluation mode and in the state VALIDATION. Raises TrainingError HB0984 for a model that is
    not prepared, HB0983 for options.
    """
    _refuse_options({**({} if mapping is None else {"mapping": mapping}), **unknown})
    if not any(PREPARED in module.__dict__ for module in model.modules()):
        raise TrainingError(84, "the model is not prepared", lever="convert what prepare_qat or prepare returned")
    work = model if inplace else copy.deepcopy(model)
    work.eval()
    set_fake_quantize(work, FakeQuantState.VALIDATION)
    return work


def _module_of(model: Any, example_inputs: Any) -> Module:
    """The module of fake quantisation of a prepared model, of one around prepared models, or of what `torch.jit.trace` made."""
    if isinstance(model, torch.jit.ScriptModule):
        leaving = calls_of(model)
        calls = upstream(leaving)
    else:
        calls = live(trace(model, as_arguments(example_inputs)).calls)
        leaving = list(filter(leaves_region, calls))
    if not leaving:
        what = "no value leaves a quantised region in the model"
        raise TrainingError(
            85, what, lever="trace or give a model that holds what `convert` returned, with a DeQuantStub"
        )
    return build_module("forward", calls)


def check_model(model: Any, example_inputs: Any, march: Any = None, advice: float = 0, **unknown: Any) -> int:
    """0 when all operations of a model run on the march's units, 1 when some are left to the host, which are listed.

    `advice` is there for scripts that pass it. `model` is what `convert` or `torch.jit.trace` returned.
    """
    del advice
    _refuse_options(unknown)
    integers = passes.convert(_module_of(model, example_inputs), str(march or get_march()))
    left = [op for op in integers[0].operations if op.name.startswith("hbir.") and _computes(op)]
    for op in left:
        print(f"{layer_name(op)}: {op.name} runs on the host CPU")
    return int(bool(left))


def _computes(op: Any) -> bool:
    return not keeps_grid(op) and bool(op.operands) and all(is_float(value) for value in op.results)


def compile_model(
    model: Any,
    example_inputs: Sequence[Any],
    hbm: str | os.PathLike[str],
    march: Any = None,
    opt: int = 2,
    **options: Any,
) -> Any:
    """Compile a model to the binary `hbm`; what `backends.compile` returns, which takes `options` too.

    `model` is what `convert` or `torch.jit.trace` returned, `example_inputs` the arguments of one call.
    """
    target = str(march or get_march())
    integers = passes.convert(_module_of(model, tuple(example_inputs)), target)
    return backends.compile(integers, Path(hbm), target, opt=opt, **options)
