"""The `.hbm` container: models compiled for one march, in one file that is either whole or refused.

Each model has its own sections, numbered: `0/graph` (description), `0/program`, `0/views`, `0/constants`, and
optionally `0/debug` (layer names, placements) and `0/host` (what the host CPU runs). Readers skip optional sections
they do not know. The format is this project's own; the vendor's files are another format with the same suffix.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from backends.nash.hbm.container import Section, pack_sections, unpack_sections
from backends.nash.hbm.graph import canonical_json, graph_to_json, parse_canonical, parse_cells, parse_graph
from backends.nash.hbm.model import Cell, HostSegment, Model, Quantization, Tensor, verify_model
from backends.nash.isa.program import Program
from backends.nash.isa.records import INSTRUCTION, VIEW, Records
from backends.nash.isa.verify import check_records, check_views
from hbir.errors import BackendError, FileFormatError
from hbir.ir.files import write_bytes

__all__ = ["Cell", "HostSegment", "Model", "Quantization", "Tensor", "link", "read", "verify_model", "write"]

_KINDS = ("graph", "program", "views", "constants", "debug", "host")


def _refuse(why: str) -> FileFormatError:
    return FileFormatError(26, "the .hbm file holds no complete model", why=why, lever="compile the model again")


def _pack_host(host: HostSegment) -> bytes:
    """Text length, text, number of constants, their digests and sizes, their bytes."""
    text = host.text.encode()
    names = sorted(host.constants)
    table = b"".join(bytes.fromhex(name) + struct.pack("<Q", len(host.constants[name])) for name in names)
    return b"".join((struct.pack("<QQ", len(text), len(names)), text, table, *(host.constants[name] for name in names)))


def _unpack_host(data: memoryview) -> HostSegment:
    if len(data) < 16:
        raise _refuse("'host' is too short")
    length, count = struct.unpack_from("<QQ", data)
    at = 16 + length
    # Sizes are compared with what is there before anything is read: both may be any 64-bit number.
    if length > len(data) - 16 or count > (len(data) - at) // 40:
        raise _refuse("'host' is shorter than its table")
    body = at + 40 * count
    constants: dict[str, memoryview] = {}
    for index in range(count):
        start = at + 40 * index
        (size,) = struct.unpack_from("<Q", data, start + 32)
        if size > len(data) - body:
            raise _refuse("'host' is shorter than its constants")
        constants[bytes(data[start : start + 32]).hex()] = data[body : body + size]
        body += size
    if body != len(data) or len(constants) != count:
        raise _refuse("'host' has bytes behind its constants, or a constant twice")
    try:
        return HostSegment(str(data[16:at], "utf-8"), constants)
    except UnicodeDecodeError as error:
        raise _refuse(f"'host' is not text: {error}") from None


def _sections(index: int, model: Model) -> Iterable[Section]:
    def section(kind: str, data: bytes | memoryview, *, required: bool = True) -> Section:
        return Section(f"{index}/{kind}", data, required)

    yield section("constants", model.constants)
    yield section("program", model.program.instructions.tobytes())
    yield section("views", model.program.views.tobytes())
    yield section("graph", graph_to_json(model))
    if model.host is not None:
        yield section("host", _pack_host(model.host))
    if model.program.layers or model.placements:
        debug = {"layers": model.program.layers, "placements": [dict(row) for row in model.placements]}
        yield section("debug", canonical_json(debug), required=False)


def write(models: Sequence[Model], path: str | Path) -> None:
    """Write the models into one file; the same models give the same bytes.

    Raises BackendError HB0508 for models that cannot share a file, ConfigError HB0801 when the file cannot be written.
    """
    names = [model.name for model in models]
    if not models or len(set(names)) != len(names):
        raise BackendError(8, f"models named {names} cannot share a file", lever="give each model its own name")
    if len({model.march for model in models}) != 1:
        marches = sorted({model.march.name for model in models})
        raise BackendError(8, f"models for {marches} cannot share a file", lever="compile all of them for one march")
    pieces = pack_sections([section for index, model in enumerate(models) for section in _sections(index, model)])
    write_bytes(Path(path), pieces)


def _records(section: Section, record: np.dtype[np.void]) -> Records:
    if len(section.data) % record.itemsize:
        raise _refuse(f"'{section.name}' of {len(section.data)} bytes is not made of records of {record.itemsize}")
    return np.frombuffer(section.data, record)


def _debug(section: Section | None) -> tuple[tuple[str, ...], tuple[Mapping[str, Cell], ...]]:
    if section is None:
        return (), ()
    value = parse_canonical(memoryview(section.data), section.name)
    if not isinstance(value, dict) or set(value) != {"layers", "placements"}:  # pyright: ignore[reportUnknownArgumentType]
        raise _refuse(f"'{section.name}' has no layers and placements")
    layers = value["layers"]  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(layers, list) or not all(isinstance(name, str) for name in layers):  # pyright: ignore[reportUnknownVariableType]
        raise _refuse(f"'{section.name}' has layer names that are no strings")
    return tuple(cast(list[str], layers)), parse_cells(value["placements"], section.name)  # pyright: ignore[reportUnknownArgumentType]


def _model(index: int, sections: dict[str, Section]) -> Model:
    mine = {kind: sections.get(f"{index}/{kind}") for kind in _KINDS}
    graph, program, views, constants = (mine[kind] for kind in ("graph", "program", "views", "constants"))
    if graph is None or program is None or views is None or constants is None:
        raise _refuse(f"model {index} lacks one of graph, program, views, constants")
    fields = parse_graph(memoryview(graph.data))
    layers, placements = _debug(mine["debug"])
    if fields["memories"].constants != len(constants.data):
        raise _refuse(
            f"model {index} has {len(constants.data)} bytes of constants, its graph says {fields['memories'].constants}"
        )
    host = mine["host"]
    model = Model(
        **fields,
        constants=memoryview(constants.data),
        program=Program(_records(program, INSTRUCTION), _records(views, VIEW), layers),
        host=None if host is None else _unpack_host(memoryview(host.data)),
        placements=placements,
    )
    check_records(model.program, model.memories.cores)
    check_views(model.program, model.memories)
    return model


def read(path: str | Path) -> tuple[Model, ...]:
    """The models of a file, their records checked; `verify_model` proves that a program is legal.

    Raises FileFormatError HB0611, HB0612 (records), HB0620 to HB0624 (container), HB0625 (description), HB0626
    (incomplete), HB0627 (unknown required section), HB0628 (cannot be opened), SimulationError HB0701 (a view outside
    its memory).
    """
    try:
        data = memoryview(Path(path).read_bytes())
    except OSError as error:
        raise FileFormatError(
            28, f"{path} cannot be read", why=error.strerror or str(error), lever="check the path"
        ) from None
    sections = unpack_sections(data)
    count = sum(name.endswith("/graph") for name in sections)
    known = {f"{index}/{kind}" for index in range(count) for kind in _KINDS}
    for name, section in sections.items():
        if section.required and name not in known:
            raise FileFormatError(
                27, f"section '{name}' is required and unknown", lever="use the tool that wrote the file"
            )
    if not count:
        raise _refuse("it has no `graph` section")
    models = tuple(_model(index, sections) for index in range(count))
    if len({model.name for model in models}) != count:
        raise _refuse("two models have one name")
    return models


def link(parts: Sequence[str | Path | Model], output: str | Path) -> None:
    """Put the models of several files, or models at hand, into one file. Raises what `read` and `write` raise."""
    models: list[Model] = []
    for part in parts:
        models += [part] if isinstance(part, Model) else read(part)
    write(models, output)
