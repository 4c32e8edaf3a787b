"""Changes that keep an input alive long enough to reach deep code: checksums and lengths are made right again, tokens and
fields are changed as wholes. A share of the inputs of every reader is changed as plain bytes, as libFuzzer does it.
"""

from __future__ import annotations

import json
import random
import re
import struct
from collections.abc import Callable
from functools import cache
from typing import Any

__all__ = ["Mutator", "mutator_of"]

Mutator = Callable[[bytes, int, int], bytes]
"""An input, the largest size and a seed; the changed input."""

_PLAIN = 0.4
"""Share of inputs that are changed as plain bytes."""

_NUMBERS = (
    0,
    1,
    2,
    3,
    7,
    8,
    16,
    63,
    64,
    127,
    128,
    255,
    256,
    32767,
    65535,
    1 << 20,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
)
_WIDE = (*_NUMBERS, 1 << 36, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, -1, -2, -(1 << 31), -(1 << 63))

Change = Callable[[bytes, int, random.Random], bytes]


def _bytes(data: bytes, most: int) -> bytes:
    import atheris

    return bytes(atheris.Mutate(data, max(most, 1)))


def mutator_of(name: str) -> Mutator:
    """The mutator of a reader."""
    change = _CHANGES[name]

    rng = random.Random()

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        rng.seed(seed)
        if rng.random() < _PLAIN:
            return _bytes(data, most)
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            data = change(data, most, rng)
        return data[:most]

    return mutate


# Text


def _tokens(pattern: str) -> Callable[[str], list[str]]:
    found = re.compile(pattern, re.DOTALL)
    return lambda text: [part for part in found.split(text) if part]


_MLIR = _tokens(r'("(?:[^"\\\n]|\\.)*"|[%#!@^]?[\w.$]+|->|[^\w\s])')
_YAML = _tokens(r"([\w./+-]+|[^\w\s]|\n\s*)")
_NUMBER = re.compile(r"-?(?:0x[0-9a-fA-F]+|\d+)")
_BRACKETS = {"{": "}", "[": "]", "(": ")", "<": ">"}


def _text(tokens: Callable[[str], list[str]], words: Callable[[], tuple[str, ...]]) -> Change:
    """Tokens are exchanged, repeated, removed or replaced by others of the same text or by words of the language."""

    def change(data: bytes, most: int, rng: random.Random) -> bytes:
        parts = tokens(data.decode("utf-8", "replace"))
        if not parts:
            return rng.choice(words()).encode()
        at, other = rng.randrange(len(parts)), rng.randrange(len(parts))
        match rng.randrange(9):
            case 0:
                parts[at] = rng.choice(parts)
            case 1:
                parts[at] = rng.choice(words())
            case 2:
                parts.insert(at, rng.choice(words()))
            case 3:
                del parts[at : at + rng.choice((1, 1, 2, 5))]
            case 4:
                parts[at], parts[other] = parts[other], parts[at]
            case 5:
                begin, end = sorted((at, other))
                parts[rng.randrange(len(parts)) : 0] = parts[begin : min(end, begin + 20)]
            case 6:
                numbers = [index for index, part in enumerate(parts) if _NUMBER.fullmatch(part)]
                if numbers:
                    parts[rng.choice(numbers)] = str(rng.choice(_WIDE))
            case 7:
                bracket = rng.choice(list(_BRACKETS))
                depth = rng.choice((1, 2, 8, 100, 1000))
                parts.insert(at, bracket * depth + _BRACKETS[bracket] * (depth * rng.randrange(2)))
            case _:
                parts[at] = _bytes(parts[at].encode(), 64).decode("utf-8", "replace")
        return "".join(parts).encode("utf-8", "replace")[:most]

    return change


@cache
def _mlir_words() -> tuple[str, ...]:
    from hbir.dialects import all_dialects

    names = [f'"{op.name}"' for dialect in all_dialects() for op in dialect.operations]
    types = (
        "i8 i16 i32 i64 si8 ui8 i1 i0 i16777215 f16 f32 f64 bf16 index none !quant.uniform tensor<2x3xf32> tensor<?xi8>"
    )
    rest = '"builtin.module" "func.func" "func.return" loc unknown fused callsite at dense array unit true false -> :: : = , '
    more = "#hbir.blob #quant %0 %1 %arg0 @main ^bb0 ^bb1 0x7FC00000 1e400 -0.0 0x" + "f" * 40 + " 9" * 3
    return (*names, *types.split(), *rest.split(), *more.split(), '"\\00"', '"\\FF"', "//", "\n", '"')


@cache
def _yaml_words() -> tuple[str, ...]:
    from tools.config_schema import Config

    sections: Any = Config.model_fields
    keys = [key for section in sections.values() for key in section.annotation.model_fields]
    marks = (
        "- ? : & * | > ! !! !!binary !!timestamp !!set !!omap !!pairs !!python/name: <<: &a *a ~ {} [] --- ... %YAML"
    )
    values = (
        "null true off .inf .nan 0x" + "f" * 40 + " 1e400 1:30:00 2001-12-14t21:59:43.10-05:00 0o7 0b1 1_0 '' \"\\x00\""
    )
    known = (
        "rgb bgr gray nv12 featuremap NCHW NHWC latency balance O3 kl max mix skip default int8 int16 1x3x8x8 0x0 ; a;b"
    )
    return (
        *sections,
        *keys,
        *marks.split(),
        *values.split(),
        *known.split(),
        "\n",
        "\n  ",
        ": ",
        "- ",
        "\t",
        "\u2028",
        "\ufeff",
    )


@cache
def _toml_words() -> tuple[str, ...]:
    from dataclasses import fields

    from hbir.march import CONFIDENCES, MARCHES, March

    keys = [field.name for field in fields(March)]
    rows = [f'{key} = {{ value = 1, source = "", confidence = "invented" }}\n' for key in keys]
    marks = "base name value source confidence = , . { } [ ] [[ ]] # \" ' \"\"\" ''' true inf -nan 1e400 0x" + "f" * 40
    return (*keys, *rows, *map(repr, (*CONFIDENCES, *MARCHES)), *marks.split(), "9" * 30, "\n", "\\uD800", "1979-05-27")


# Containers


def _json_value(value: Any, rng: random.Random) -> Any:
    """A JSON value with something inside it changed."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        if rng.random() < 0.05:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: _json_value(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        match rng.randrange(6):
            case 0:
                return value[:at] + value[at + 1 :]
            case 1:
                return value[: at + 1] + value[at:]
            case _:
                return [*value[:at], _json_value(value[at], rng), *value[at + 1 :]]
    if isinstance(value, int) and rng.random() < 0.5:
        return value + rng.choice((-1, 1, -64, 64, 4096))
    if isinstance(value, str) and rng.random() < 0.7:
        return rng.choice(("", "x", "y", "i8", "i32", "f64", "b8", "a" * 300, "\u00e9", "\x00", "\ud800"))
    return rng.choice((*_WIDE, 10**400, None, True, 0.5, -1.5, 1e308, [], {}, "", [0], [[]], {"a": 1}))


def _json_bytes(data: bytes, rng: random.Random) -> bytes:
    try:
        changed = _json_value(json.loads(data), rng)
        text = json.dumps(changed, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return text.encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return _bytes(data, len(data) + 64)


def _words(data: bytes, rng: random.Random, layout: tuple[str, ...]) -> bytes:
    """Records with one field changed, repeated or removed; `layout` gives the struct code of each field."""
    form = struct.Struct("<" + "".join(layout))
    count = len(data) // form.size
    if not count:
        return _bytes(data, 4 * form.size)
    at = rng.randrange(count) * form.size
    match rng.randrange(8):
        case 0:
            return data[:at] + data[at + form.size :]
        case 1:
            other = rng.randrange(count) * form.size
            return data[:at] + data[other : other + form.size] + data[at:]
        case 2:
            return _bytes(data, len(data))
        case _:
            values = list(form.unpack_from(data, at))
            index = rng.randrange(len(values))
            size = 8 * struct.calcsize("<" + layout[index])
            lowest, highest = (
                (-(1 << size - 1), (1 << size - 1) - 1) if layout[index].islower() else (0, (1 << size) - 1)
            )
            new = rng.choice((values[index] + rng.choice((-1, 1, 64, -64)), rng.choice(_WIDE), rng.randrange(32)))
            values[index] = min(max(new, lowest), highest)
            return data[:at] + form.pack(*values) + data[at + form.size :]


_INSTRUCTION = (*"HBBI", *"B" * 8, *"I" * 8, *"I" * 8, *"i" * 24)
_VIEW = (*"BBBBIQ", *"I" * 6, *"i" * 6)


def _hbm(data: bytes, most: int, rng: random.Random) -> bytes:
    """A section is changed as what it is; the table and all checksums are written anew."""
    from backends.nash.hbm.container import Section, pack_sections, unpack_sections
    from hbir.errors import HbError

    try:
        sections = list(unpack_sections(memoryview(data)).values())
    except HbError:
        return _bytes(data, most)
    at = rng.randrange(len(sections))
    section = sections[at]
    kind, old = section.name.rpartition("/")[2], bytes(section.data)
    match kind if rng.random() < 0.95 else "":
        case "graph" | "debug":
            new = _json_bytes(old, rng)
        case "program":
            new = _words(old, rng, _INSTRUCTION)
        case "views":
            new = _words(old, rng, _VIEW)
        case "":
            if rng.random() < 0.5 and len(sections) > 1:
                del sections[at]
            else:
                name = rng.choice((section.name.replace("0/", "1/"), section.name.replace("1/", "0/"), "0/host", "x"))
                sections.append(Section(name, section.data, rng.random() < 0.5))
            return b"".join(pack_sections(sections))[:most]
        case _:
            new = _bytes(old, len(old) + 64)
    sections[at] = Section(section.name, new, section.required)
    return b"".join(pack_sections(sections))[:most]


def _bc(data: bytes, most: int, rng: random.Random) -> bytes:
    """One section is changed; its length is made right."""
    from hbir.errors import HbError
    from hbir.ir.bytecode.primitives import Cursor, Emitter

    try:
        file = Cursor(memoryview(data))
        file.bytes(4)
        file.varint()
        while file.byte():
            pass
        head, sections = data[: file.at], []
        while file.left:
            start = file.byte()
            file.at -= 1
            number, content = file.section()
            sections.append((start, number, content.origin, bytes(content.data)))
    except HbError:
        return _bytes(data, most)
    if not sections:
        return _bytes(data, most)
    chosen = rng.randrange(len(sections))
    out = Emitter()
    out.bytes(head)
    for index, (start, _, origin, content) in enumerate(sections):
        if index == chosen:
            content = _varints(content, rng) if rng.random() < 0.5 else _bytes(content, len(content) + 32)
        out.byte(start)
        out.varint(len(content))
        if start & 0x80:
            alignment = min(origin & -origin, 64) if origin else 1
            out.varint(alignment)
            out.padding(-len(out.out) % alignment)
        out.bytes(content)
    return bytes(out.out)[:most]


def _varints(content: bytes, rng: random.Random) -> bytes:
    """One byte becomes another number: a byte with its lowest bit set is a whole number of seven bits."""
    if not content:
        return content
    at = rng.randrange(len(content))
    match rng.randrange(4):
        case 0:
            new = bytes([(content[at] + rng.choice((2, -2, 4, -4))) % 256])
        case 1:
            new = bytes([rng.randrange(64) << 1 | 1])
        case 2:
            new = bytes([content[at], content[at]])
        case _:
            new = b"\0" + rng.choice(_WIDE).__and__((1 << 64) - 1).to_bytes(8, "little")
    return content[:at] + new + content[at + 1 :]


def _weights(data: bytes, most: int, rng: random.Random) -> bytes:
    """The header is changed as JSON, or the values as bytes; the length of the header is made right."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > len(data) - 8:
        return _bytes(data, most)
    head, body = data[8 : 8 + size], data[8 + size :]
    if rng.random() < 0.7:
        head = _json_bytes(head, rng) if rng.random() < 0.6 else _bytes(head, len(head) + 32)
    else:
        body = _bytes(body, len(body) + 16)
    return (len(head).to_bytes(8, "little") + head + body)[:most]


def _message(message: Any, rng: random.Random, depth: int = 0) -> None:
    """Change a field somewhere inside a protobuf message."""
    fields = message.DESCRIPTOR.fields
    present = [field for field, _ in message.ListFields()]
    nested = [field for field in present if field.message_type is not None]
    if nested and depth < 8 and rng.random() < 0.85:
        field = rng.choice(nested)
        value = getattr(message, field.name)
        if not field.is_repeated:
            _message(value, rng, depth + 1)
            return
        at = rng.randrange(len(value))
        match rng.randrange(16):
            case 0:
                del value[at]
            case 1:
                value.add().CopyFrom(value[at])
            case 2:
                value[at].CopyFrom(rng.choice(value))
            case _:
                _message(value[at], rng, depth + 1)
        return
    field = rng.choice(present if present and rng.random() < 0.7 else list(fields))
    if field.message_type is not None or rng.random() < 0.1:
        message.ClearField(field.name)
        return
    new = _scalar(field, rng)
    if field.is_repeated:
        values = getattr(message, field.name)
        at = rng.randrange(len(values) + 1)
        if at == len(values):
            values.append(new)
        elif rng.random() < 0.3:
            del values[at]
        else:
            values[at] = new
    else:
        setattr(message, field.name, new)


_NAMES = (
    "",
    "x",
    "y",
    "w",
    "axis",
    "axes",
    "perm",
    "pads",
    "strides",
    "kernel_shape",
    "value",
    "to",
    "mode",
    "com.microsoft",
)


@cache
def _operators() -> tuple[str, ...]:
    from hbir.frontends.onnx import supported_operators

    return (*(name.rpartition("::")[2] for name in supported_operators()), "If", "Loop", "TopK")


def _scalar(field: Any, rng: random.Random) -> Any:
    """A value for a field of a protobuf message."""
    if field.name == "op_type":
        return rng.choice(_operators())
    match field.cpp_type:
        case field.CPPTYPE_STRING if field.type == field.TYPE_BYTES:
            return rng.choice((b"", b"linear", b"SAME_UPPER", b"\0" * 4, b"\0\0\x80?", b"\xff" * 16, b"ij,jk->ik"))
        case field.CPPTYPE_STRING:
            return rng.choice(_NAMES)
        case field.CPPTYPE_FLOAT | field.CPPTYPE_DOUBLE:
            return rng.choice((0.0, 1.0, -1.0, 0.5, 1e-30, 1e30, 3e38, float("inf"), float("nan"), 255.0))
        case field.CPPTYPE_INT32:
            return rng.choice((0, 1, 2, 3, 6, 7, 9, 10, 11, 16, 22, -1, (1 << 31) - 1))
        case field.CPPTYPE_ENUM:
            return rng.choice(field.enum_type.values).number
        case field.CPPTYPE_UINT64 | field.CPPTYPE_UINT32:
            return rng.choice(_NUMBERS[:-1])
        case _:
            return rng.choice([n for n in (*_WIDE, *range(-4, 24)) if -(1 << 63) <= n < 1 << 63])


def _onnx(data: bytes, most: int, rng: random.Random) -> bytes:
    """One field of the message is changed as what it is."""
    from google.protobuf.message import DecodeError
    from onnx import ModelProto

    try:
        model = ModelProto.FromString(data)
    except DecodeError:
        return _bytes(data, most)
    try:
        for _ in range(rng.choice((1, 1, 2, 3))):
            _message(model, rng)
        changed = model.SerializeToString()
    except (ValueError, TypeError):  # a string of the input that is no text cannot be written again
        return _bytes(data, most)
    return changed if len(changed) <= most else _bytes(data, most)


_CHANGES: dict[str, Change] = {
    "onnx": _onnx,
    "mlir": _text(_MLIR, _mlir_words),
    "bc": _bc,
    "weights": _weights,
    "hbm": _hbm,
    "yaml": _text(_YAML, _yaml_words),
    "toml": _text(_YAML, _toml_words),
}
