"""The operations, types and attributes of all dialects, as their definitions state them."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from xdsl.dialects.builtin import (
    ArrayAttr,
    BytesAttr,
    DenseArrayBase,
    Float32Type,
    Float64Type,
    FloatAttr,
    IntAttr,
    IntegerAttr,
    IntegerType,
    StringAttr,
    TensorType,
)
from xdsl.ir import Attribute, Dialect, Operation, TypeAttribute
from xdsl.irdl import (
    AttrConstraint,
    BaseAttr,
    EqAttrConstraint,
    OptionalDef,
    ParamAttrConstraint,
    RangeConstraint,
    RangeLengthConstraint,
    RangeOf,
    VariadicDef,
)

from tools.reference.names import Entry
from tools.reference.pipelines import own_passes

__all__ = ["AttributePage", "DialectPage", "Operand", "OperationPage", "dialect_pages"]


@dataclass(frozen=True)
class Operand:
    """An operand, a result, a property or a parameter."""

    name: str
    type: str
    note: str
    """`optional`, `variadic`, or nothing."""
    doc: str = ""


@dataclass(frozen=True)
class OperationPage:
    """One operation."""

    name: str
    doc: str
    home: str
    """Full name of its class."""
    operands: tuple[Operand, ...]
    results: tuple[Operand, ...]
    properties: tuple[Operand, ...]
    traits: tuple[str, ...]
    runs_on: str
    passes: tuple[str, ...]
    """Names of the passes that treat it."""


@dataclass(frozen=True)
class AttributePage:
    """One type or attribute."""

    name: str
    sigil: str
    """`!` before a type, `#` before another attribute."""
    doc: str
    home: str
    parameters: tuple[Operand, ...]


@dataclass(frozen=True)
class DialectPage:
    """One dialect."""

    name: str
    doc: str
    operations: tuple[OperationPage, ...]
    attributes: tuple[AttributePage, ...]


# What the text of a module calls the builtin attributes.
_NAMES: dict[type[Attribute], str] = {
    TensorType: "tensor",
    StringAttr: "string",
    ArrayAttr: "list",
    FloatAttr: "float",
    IntegerAttr: "integer",
    DenseArrayBase: "array",
    Float32Type: "f32",
    Float64Type: "f64",
    IntegerType: "integer type",
    IntAttr: "int",
    BytesAttr: "bytes",
}


def _class_name(kind: type[Attribute]) -> str:
    if kind in _NAMES:
        return _NAMES[kind]
    return f"{'!' if issubclass(kind, TypeAttribute) else '#'}{kind.name}"


def _constraint(constraint: AttrConstraint | RangeConstraint) -> str:
    """A constraint in the words of MLIR's text: `tensor`, `i64`, `array<i8>`, `!quant.uniform`."""
    match constraint:
        case RangeLengthConstraint():
            return _constraint(constraint.constraint)
        case RangeOf():
            return _constraint(constraint.constr)
        case EqAttrConstraint():
            return "bool" if constraint.attr == IntegerType(1) else str(constraint.attr)
        case BaseAttr():
            return _class_name(constraint.attr)
        case ParamAttrConstraint():
            base = cast(type[Attribute], constraint.base_attr)
            inner = [_constraint(c) for c in constraint.param_constrs if isinstance(c, EqAttrConstraint)]
            if base in (IntegerAttr, FloatAttr) and inner:
                return inner[0]
            return f"{_class_name(base)}<{', '.join(inner)}>" if inner else _class_name(base)
        case _:
            return str(constraint)


def _note(definition: object) -> str:
    return (
        "optional" if isinstance(definition, OptionalDef) else "variadic" if isinstance(definition, VariadicDef) else ""
    )


def _property_doc(name: str, entry: Entry | None, helpers: Mapping[str, str]) -> str:
    """What a property means: the docstring below it in the class, or else that of the function which makes it."""
    field = next((f for f in entry.fields if f.name == name), None) if entry is not None else None
    if field is None:
        return ""
    return field.doc or helpers.get(field.default.partition("(")[0], "")


def _operation(
    kind: type[Operation], entries: Mapping[str, Entry], helpers: Mapping[str, str],
    units: frozenset[type[Operation]], treated: Mapping[type[Operation], list[str]],
) -> OperationPage:  # fmt: skip
    definition = cast(Any, kind).get_irdl_definition()
    entry = entries.get(f"{kind.__module__}.{kind.__qualname__}")

    def listed(pairs: Iterable[tuple[str, Any]]) -> tuple[Operand, ...]:
        chosen = [(name, each) for name, each in pairs if name != "operandSegmentSizes"]
        return tuple(
            Operand(name, _constraint(each.constr), _note(each), _property_doc(name, entry, helpers))
            for name, each in chosen
        )

    runs_on = (
        "units of the Nash marches" if kind in units else "the host CPU, unless a pass turns it into something else"
    )
    if kind.name.startswith("qat.") or kind.name == "quantized.function":
        runs_on = "nothing: conversion replaces it"
    elif kind.name == "hbir.constant":
        runs_on = "nothing: it is data"
    return OperationPage(
        kind.name,
        inspect.cleandoc(kind.__doc__ or ""),
        f"{kind.__module__}.{kind.__qualname__}",
        listed(definition.operands),
        listed(definition.results),
        listed(definition.properties.items()),
        tuple(sorted(type(trait).__name__ for trait in kind.traits.traits)),
        runs_on,
        tuple(treated.get(kind, ())),
    )


def _attribute(kind: type[Attribute]) -> AttributePage:
    definition = cast(Any, kind).get_irdl_definition() if hasattr(kind, "get_irdl_definition") else None
    parameters: list[tuple[str, Any]] = list(definition.parameters) if definition is not None else []
    return AttributePage(
        kind.name,
        "!" if issubclass(kind, TypeAttribute) else "#",
        inspect.cleandoc(kind.__doc__ or ""),
        f"{kind.__module__}.{kind.__qualname__}",
        tuple(Operand(name, _constraint(getattr(d, "constr", d)), "") for name, d in parameters),
    )


_CLASS = re.compile(r"\b(?:(\w+)\.)?(\w+Op)\b")


def _treated() -> dict[type[Operation], list[str]]:
    """The passes whose files name an operation class, as `AddOp` or `q.AddOp`."""
    found: dict[type[Operation], list[str]] = {}
    for name, kind in own_passes().items():
        module = importlib.import_module(kind.__module__)
        for home, member in sorted(set(_CLASS.findall(inspect.getsource(module)))):
            value = getattr(getattr(module, home, None) if home else module, member, None)
            if isinstance(value, type) and issubclass(value, Operation) and name not in found.setdefault(value, []):
                found[value].append(name)
    return found


def dialect_pages(entries: Mapping[str, Entry], helpers: Mapping[str, str]) -> tuple[DialectPage, ...]:
    """The dialects of the project.

    `entries` are the listed classes by where they are defined, `helpers` the docstrings of the functions that make
    properties, by name.
    """
    from backends.nash.lower.lowering import supported_operations
    from hbir.dialects import own_dialects

    units, treated = supported_operations(), _treated()

    def page(dialect: Dialect) -> DialectPage:
        operations = [_operation(kind, entries, helpers, units, treated) for kind in dialect.operations]
        kinds = [*dialect.operations, *dialect.attributes]
        home = kinds[0].__module__ if kinds else ""
        # The docstring of a dialect is that of the module or package that defines it.
        owner = home.rpartition(".")[0] if home.count(".") > 2 else home
        doc = inspect.cleandoc(importlib.import_module(owner).__doc__ or "") if owner else ""
        attributes = tuple(_attribute(kind) for kind in dialect.attributes)
        return DialectPage(dialect.name, doc, tuple(sorted(operations, key=lambda o: o.name)), attributes)

    return tuple(page(dialect) for dialect in own_dialects())
