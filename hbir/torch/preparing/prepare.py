"""From a float model to one with fake quantisation: trace, fuse, choose, place."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, cast

import torch

from hbir.arguments import checked_kind
from hbir.errors import TrainingError
from hbir.torch import validation
from hbir.torch.exporting.build import build_module
from hbir.torch.fake_quant.fake_quantize import WAITING, FakeQuantState, fake_quants, lasting, set_fake_quantize
from hbir.torch.march import get_march
from hbir.torch.operations.registry import Kind, Operation
from hbir.torch.preparing.shared import check_shared
from hbir.torch.preparing.state_dicts import adapt
from hbir.torch.preparing.trace import Trace, as_arguments, live, trace
from hbir.torch.qconfig.choices import Choice, QconfigRule
from hbir.torch.qconfig.choices import explain as explained
from hbir.torch.qconfig.defaults import rules_for
from hbir.torch.stubs import QuantStub, adopt
from hbir.torch.tracing.calls import Call, Key
from hbir.torch.tracing.fusion import Group
from hbir.torch.tracing.places import Place, places_of
from hbir.torch.tracing.scopes import KNOWN, PREPARED, SITES, Site, install

__all__ = ["PrepareMethod", "choices_of", "explain", "prepare"]


class PrepareMethod(Enum):
    """How a model's operations are found."""

    EAGER = "modules alone, no operation outside of them"
    SYMBOLIC = "symbolic tracing of torch.fx; control flow must not depend on tensors"
    JIT = "one run on example inputs; everything must lie between stubs"
    JIT_STRIP = "one run on example inputs; what lies before the stubs and behind them stays as it is"


def prepare(
    model: torch.nn.Module,
    example_inputs: Any = None,
    qconfig_setter: QconfigRule | Sequence[QconfigRule] | None = None,
    method: PrepareMethod = PrepareMethod.JIT_STRIP,
) -> torch.nn.Module:
    """A copy of `model` with fake quantisation on every value between its stubs.

    `example_inputs` are the arguments of one call, a tuple for several. The model runs once on them, in the mode it is in:
    call `eval()` first. `qconfig_setter` is a rule that chooses dtypes and observers, or several, the most important first.
    State dicts of prepared models fit one another whatever the rules, and those of the float model but for scales.
    Raises TrainingError HB0902 without a march, HB091x and HB0920 for what has no quantised form, HB093x for a model or
    arguments that do not fit.
    """
    march = get_march()
    lever = f"choose one of {', '.join(each.name for each in PrepareMethod)}"
    checked_kind(
        model,
        torch.nn.Module,
        lambda shown, why: TrainingError(33, f"the model is {shown}", why=why, lever="give a torch.nn.Module"),
    )
    checked_kind(
        method, PrepareMethod, lambda shown, why: TrainingError(37, f"the method is {shown}", why=why, lever=lever)
    )
    if any(PREPARED in module.__dict__ for module in model.modules()):
        raise TrainingError(34, "the model is prepared already", lever="prepare the float model")
    if example_inputs is None and method in (PrepareMethod.JIT, PrepareMethod.JIT_STRIP):
        raise TrainingError(
            35, f"{method.name} needs example inputs", lever="give the arguments of one call, in a tuple"
        )
    rules = rules_of(qconfig_setter)
    with lasting():
        work = copy.deepcopy(model)
        adopt(work)
        install(work)
        if example_inputs is None:
            _wait(work, rules, method)
        else:
            _place(work, trace(work, as_arguments(example_inputs)), rules, method)
    adapt(work)
    work.__dict__[PREPARED] = march
    work.register_forward_pre_hook(validation.begin, prepend=True, with_kwargs=True)
    work.register_forward_hook(validation.end, always_call=True)
    return work


_CHOICES = "_hbir_choices"


@dataclass
class _Waiting:
    """A model whose operations are found on its first run: the rules, and the scales that were loaded before it."""

    rules: Sequence[QconfigRule]
    method: PrepareMethod
    handles: list[Any]
    loaded: dict[str, torch.Tensor] = field(default_factory=dict[str, torch.Tensor])
    state: FakeQuantState | None = None
    """The state that was set before the first run."""
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    """What the state dict said beside its tensors: dtypes of scales."""


def _wait(model: torch.nn.Module, rules: Sequence[QconfigRule], method: PrepareMethod) -> None:
    handles = [
        model.register_forward_pre_hook(_first_run, prepend=True, with_kwargs=True),
        cast(Any, model).register_load_state_dict_pre_hook(_keep_scales),
    ]
    model.__dict__[WAITING] = _Waiting(rules, method, handles)


def _first_run(model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    waiting = cast(_Waiting, model.__dict__.pop(WAITING))
    for handle in waiting.handles:
        handle.remove()
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        found = trace(model, args, kwargs)
    finally:
        for module, mode in modes:
            module.training = mode
    _place(model, found, waiting.rules, waiting.method)
    if waiting.loaded:
        whole = model.state_dict()
        whole.update(waiting.loaded)
        cast(Any, whole)._metadata.update(waiting.metadata)
        model.load_state_dict(whole)
    if waiting.state is not None:
        set_fake_quantize(model, waiting.state)


def _keep_scales(model: torch.nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Set the scales of a state dict aside: nothing stands where they belong yet."""
    waiting = cast(_Waiting, model.__dict__[WAITING])
    for key in [key for key in state_dict if any(part in key for part in _SCALES)]:
        waiting.loaded[key.removeprefix(prefix)] = state_dict.pop(key)
    waiting.metadata.update(getattr(state_dict, "_metadata", {}))


_SCALES = ("activation_post_process.", "weight_fake_quant.", "input_fake_quant_")


def _place(model: torch.nn.Module, found: Trace, rules: Sequence[QconfigRule], method: PrepareMethod) -> None:
    if method is PrepareMethod.EAGER:
        _check_modules_alone(found)
    check_shared(found.calls)
    # What has no form is told before anything is trained.
    build_module("main", live(found.calls))
    model.__dict__[_CHOICES] = place(model, found, rules, marked=method is PrepareMethod.EAGER)


def _check_modules_alone(found: Trace) -> None:
    for call in found.calls:
        if isinstance(call.operation, Operation) and call.operation.kind in (Kind.COMPUTE, Kind.WEIGHTED):
            if call.name != call.key[0] and not _has_modules_alone(call):
                raise TrainingError(
                    38,
                    f"{call.kind} is called outside of a module",
                    where=f"{call.source}",
                    why="EAGER finds modules alone",
                    lever="use a module (torch.nn.ReLU, FloatFunctional), or prepare with PrepareMethod.JIT_STRIP",
                )


def _has_modules_alone(call: Call) -> bool:
    """Whether a call stands in a module of PyTorch's, which is one operation for the user, whatever it calls."""
    return call.module is not None and type(call.module).__module__.startswith(("torch.nn", "torch.ao", "hbir."))


def rules_of(given: Any) -> list[QconfigRule]:
    """The rules that `qconfig_setter` means. Raises TrainingError HB0936 for what is no rule."""
    several = isinstance(given, tuple | list)
    rules: list[Any] = [] if given is None else list(cast("Sequence[Any]", given)) if several else [given]
    for rule in rules:
        if not callable(getattr(rule, "choose", None)):
            lever = "give default_calibration_qconfig_setter, a QconfigSetter, or a tuple of such"
            if callable(rule):
                lever = f"call it: {getattr(rule, '__name__', 'the function')}(…) makes the rule"
            raise TrainingError(36, f"qconfig_setter is {rule!r}", lever=lever)
    return rules


def explain(model: torch.nn.Module, layer: str) -> str:
    """Which quantisation a layer of a prepared model got, and which rules said so.

    Raises TrainingError HB0922 for a model that is not prepared, HB0942 when nothing of that name is quantised.
    """
    choices = choices_of(model)
    named = cast("Iterable[tuple[str, torch.nn.Module]]", model.named_modules())
    sites = ((path, number, site) for path, module in named for number, site in module.__dict__.get(SITES, {}).items())
    # An operation that is not all of its module has a name of its own.
    known = {site.name: f"{path}:{number}" for path, number, site in sites if site.name != path}
    return explained(choices, known.get(layer, layer))


def choices_of(model: torch.nn.Module) -> Mapping[Key, Choice]:
    """What the rules decided for each place of a prepared model. Raises TrainingError HB0922 for one that is not prepared."""
    if _CHOICES not in model.__dict__:
        what = "the model has no fake quantisation yet"
        raise TrainingError(22, what, lever="prepare it, and run it once when it was prepared without example inputs")
    return model.__dict__[_CHOICES]


def place(
    model: torch.nn.Module, found: Trace, rules: Sequence[QconfigRule], *, marked: bool = False
) -> dict[Key, Choice]:
    """Put fake quants where the rules want them; `marked`: only what the user fused by hand is fused."""
    places, groups = places_of(found.calls, marked=marked)
    chosen: dict[Key, Choice] = {}
    for rule in rules_for(model, rules):
        chosen.update({key: choice for key, choice in rule.choose(places, chosen).items() if key not in chosen})
    norms = _batch_norms([group for group in groups if _has_weight(chosen.get(group.layer.key))])
    summed = {group.layer.key for group in groups if any(member.kind == "add" for member in group.members)}
    modules: dict[str, torch.nn.Module] = dict(cast("Iterable[tuple[str, Any]]", model.named_modules()))
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    by_key = {each.key: each for each in places}
    for key, call in {call.key: call for call in reversed(found.calls)}.items():
        module = modules[key[0]]
        spot = by_key.get(key)
        if call.kind == "dequant":
            continue
        if call.kind == "quant":
            stub = cast(QuantStub, module)
            stub.activation_post_process = chosen[key].activation if key in chosen else None
            continue
        site = Site(call.kind, call.source, call.name, folded=key in norms[1], summed=key in summed)
        if spot is not None and key in chosen:
            _fill(site, module, spot, chosen[key], norms[0].get(key), modules)
        module.__dict__.setdefault(SITES, {})[key[1]] = site
        model.__dict__.setdefault(KNOWN, {})[key[0]] = None
    model.to(device)
    for fake in fake_quants(model):
        fake.train(model.training)
    return chosen


def _has_weight(choice: Choice | None) -> bool:
    return choice is not None and choice.weight is not None


def _batch_norms(groups: Sequence[Group]) -> tuple[dict[Key, Call], set[Key]]:
    """The batch norm of each layer that has one behind it, and the places of all of these."""
    found = {group.layer.key: group.batch_norm for group in groups if group.batch_norm is not None}
    return found, {norm.key for norm in found.values()}


def _fill(
    site: Site,
    module: torch.nn.Module,
    spot: Place,
    choice: Choice,
    norm: Call | None,
    modules: Mapping[str, torch.nn.Module],
) -> None:
    owner, prefix = module, ""
    home, child = module, ""
    if spot.name != spot.key[0]:
        # A place that is not all of its module has a child of its own there, where nobody goes over the children.
        path, home = _home(module)
        child = f"_generated_{spot.kind}_{spot.key[1]}"
        if home is not module:
            child += f"_of_{spot.key[0].replace('.', '_')}"
        owner = torch.nn.Module()
        prefix = f"{path}{child}."
    if choice.activation is not None:
        owner.activation_post_process = choice.activation
        site.fake_quant = f"{prefix}activation_post_process"
    if choice.weight is not None:
        owner.weight_fake_quant = choice.weight
        site.weight_fake_quant = f"{prefix}weight_fake_quant"
        if norm is not None:
            site.batch_norm = (modules[norm.key[0]],)
    inputs: list[tuple[int, str]] = []
    for number, fake in choice.inputs.items():
        setattr(owner, f"input_fake_quant_{number}", fake)
        inputs.append((number, f"{prefix}input_fake_quant_{number}"))
    site.inputs = tuple(inputs)
    if child and dict(owner.named_children()):
        setattr(home, child, owner)


_CONTAINERS = (torch.nn.ModuleDict, torch.nn.ModuleList, torch.nn.Sequential)
_CHILDREN = frozenset({"_modules", "children", "modules", "named_children", "named_modules"})


def _home(module: torch.nn.Module) -> tuple[str, torch.nn.Module]:
    """Where fake quants of operations in a module stand, and its path below the module with a dot behind it: the module, or the
    first below it that does not run whatever children it has."""
    path = ""
    while isinstance(module, _CONTAINERS) or not _CHILDREN.isdisjoint(_names_in(type(module).forward)):
        name, below = next(iter(module.named_children()), ("", None))
        if below is None:
            break
        path, module = f"{path}{name}.", below
    return path, module


def _names_in(function: Any) -> tuple[str, ...]:
    """The names that a function of Python reads."""
    code = getattr(function, "__code__", None)
    return () if code is None else code.co_names
