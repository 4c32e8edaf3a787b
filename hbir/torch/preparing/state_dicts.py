"""State dicts between models that other rules prepared: the fake quants that only one of the two has."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, cast

import torch

from hbir.torch.fake_quant.fake_quantize import FakeQuantize

__all__ = ["adapt"]


def adapt(model: torch.nn.Module) -> None:
    """Let a prepared model load, strictly, the state dict of one that other rules prepared.

    Scales of fake quants that the model does not have are left out. A fake quant that the dict has nothing for stays as it is:
    in a new model it is not calibrated, which CALIBRATION and QAT mend, VALIDATION warns of (HB0947), and `export` refuses
    where it is so everywhere (HB0925). A dict without any scale, that of a float model, is loaded as by any module; other keys
    that do not fit, and scales below modules that the model does not have, are refused as ever.
    """
    cast(Any, model).register_load_state_dict_pre_hook(_fit)


_SCALE = re.compile(
    r"(?P<name>(?P<owner>.*?)\.?\b(?:activation_post_process|weight_fake_quant|input_fake_quant_\d+))"
    r"\.(?:scale|zero_point|activation_post_process\..+)"
)
"""A key of a fake quant; what observers saw stands in older dicts."""


def _fit(model: torch.nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    held: dict[str, list[str]] = {}
    owners: dict[str, str] = {}
    for key in state_dict:
        found = _SCALE.fullmatch(key.removeprefix(prefix)) if key.startswith(prefix) else None
        if found is not None:
            held.setdefault(found["name"], []).append(key)
            owners[found["name"]] = found["owner"]
    if not held:
        return
    modules: dict[str, Any] = dict(cast("Iterable[tuple[str, Any]]", model.named_modules(remove_duplicate=False)))
    own = {name: module for name, module in modules.items() if isinstance(module, FakeQuantize)}
    for name, keys in held.items():
        if name not in own and _place(owners[name]) in modules:
            for key in keys:
                del state_dict[key]
    for name, fake in own.items():
        if name not in held and _SCALE.fullmatch(f"{name}.scale"):
            # Its own tensors, which it knows and leaves alone.
            state_dict[f"{prefix}{name}.scale"], state_dict[f"{prefix}{name}.zero_point"] = fake.scale, fake.zero_point


def _place(owner: str) -> str:
    """The module of a fake quant's owner: an operation that is not all of its module has a child there, which other rules may
    not have made."""
    above, _, last = owner.rpartition(".")
    return above if last.startswith("_generated_") else owner
