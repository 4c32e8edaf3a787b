"""The passes: their promises and options, and the stock pipelines that they stand in."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields
from typing import TYPE_CHECKING, Any

from tools.reference.names import Entry

if TYPE_CHECKING:
    from passes.manager import Pass

__all__ = ["Option", "PassPage", "own_passes", "pass_pages"]


@dataclass(frozen=True)
class Option:
    """An option of a pass, or of a command."""

    name: str
    type: str
    default: str
    doc: str


@dataclass(frozen=True)
class PassPage:
    """One pass."""

    name: str
    about: str
    """What its file says of it."""
    doc: str
    home: str
    """Full name of its class."""
    promise: str
    meaning: str
    """What the promise says."""
    options: tuple[Option, ...]
    text: str
    """Its form in the text of a pipeline."""
    pipelines: tuple[str, ...]
    """Full names of the functions whose stock pipelines it stands in."""


def own_passes() -> dict[str, type[Pass]]:
    """The passes of the project by name; those that installed packages add are described by them."""
    from passes import available_passes, load_pass

    found = {name: load_pass(name) for name in sorted(available_passes())}
    return {name: kind for name, kind in found.items() if kind.__module__.startswith("passes.")}


def _stock() -> dict[str, set[str]]:
    """Names of passes by the function that runs them."""
    from hbir.march import load_march
    from passes.convert import convert_pipeline
    from passes.manager import Pass, Pipeline

    calibrate = importlib.import_module("passes.calibrate")  # the package has a function of this name
    march = load_march("nash-e")
    text = convert_pipeline(march, high_precision_output=True)
    # Passes that calibration makes from what it has measured stand in its file as classes.
    made = {kind.name for kind in vars(calibrate).values() if isinstance(kind, type) and issubclass(kind, Pass)}
    floats = {step.name for step in Pipeline(calibrate.FLOAT_PIPELINE).steps}
    return {
        "passes.calibrate": floats | made,
        "passes.convert": {step.name for step in Pipeline(text).steps},
    }


def _is_option(field: Field[Any]) -> bool:
    return field.init and field.repr


def _default(field: Field[Any]) -> str:
    if field.default is not MISSING:
        return str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
    return "" if field.default_factory is MISSING else str(field.default_factory())


def pass_pages(entries: Mapping[str, Entry]) -> tuple[PassPage, ...]:
    """All passes of the project by name. `entries` are the listed classes by where they are defined."""
    stock = _stock()
    pages: list[PassPage] = []
    for name, kind in own_passes().items():
        home = f"{kind.__module__}.{kind.__qualname__}"
        documented = {field.name: field for field in entries[home].fields} if home in entries else {}
        options = tuple(
            Option(
                field.name.replace("_", "-"), str(field.type), _default(field),
                documented[field.name].doc if field.name in documented else "",
            )
            for field in fields(kind)
            if _is_option(field)
        )  # fmt: skip
        given = " ".join(f"{option.name}={option.default or '…'}" for option in options)
        pages.append(
            PassPage(
                name,
                inspect.cleandoc(importlib.import_module(kind.__module__).__doc__ or ""),
                inspect.cleandoc(kind.__doc__ or ""),
                home,
                kind.promise.name,
                kind.promise.value,
                options,
                f"{name}{{{given}}}" if given else name,
                tuple(function for function, names in sorted(stock.items()) if name in names),
            )
        )
    return tuple(pages)
