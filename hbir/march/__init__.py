"""Marches: the machines that a model can be compiled for, one TOML file each, every number with its source and
confidence.

A march is data. `load_march` reads a stock march by name or a user's own file by path; `sources` gives the table of
where each number comes from. The Nash machines here are this project's open model of the family, fitted to published
figures; they are not the vendor's specification. Of `bayes`, the generation before, limits are published and no latency is
fitted: what it costs rests on numbers marked as invented.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints

from hbir.arguments import checked_path, shown
from hbir.errors import BackendError

__all__ = ["CONFIDENCES", "MARCHES", "March", "Source", "load_march", "march_from_values", "march_values", "sources"]

MARCHES = ("nash-e", "nash-m", "nash-p", "nash-h", "bayes")
"""Names of the stock marches."""

CONFIDENCES = ("vendor-doc", "measured", "inferred", "invented")
"""How well a number is known, best first."""

_FOLDER = Path(__file__).parent
_LARGEST = 1 << 62
"""Of a number in a march file: more has no meaning, and what is computed from it would have no end."""
_LONGEST = 1 << 18
"""Bytes of a march file."""
_DOTS = 256
"""In a line of a march file."""
_TYPES = ("int8", "int16", "int32", "float16", "float32")


@dataclass(frozen=True, slots=True)
class March:
    """One machine. Rates are per core and per cycle of `clock_hz` unless their names say otherwise; sizes are bytes.

    Raises BackendError HB0507 when the numbers contradict each other.
    """

    name: str
    """The name that commands and files call it by."""
    chip: str
    """The chip that it models."""
    board: str
    """The board whose published figures it is fitted to."""
    cores: int
    """Cores that share DDR (and L2M)."""
    clock_hz: float
    """Cycles per second of every unit."""
    advertised_tops: float
    """The vendor's figure for the chip, for the reader only: nothing is computed from it."""
    l1m_bytes: int
    """Private memory of one core; every compute unit reads and writes here."""
    l2m_bytes: int
    """Memory shared by the cores; 0 when there is none."""
    ddr_bytes_per_second: float
    """What the DMA engines of all cores achieve together, reading and writing."""
    l2m_bytes_per_second: float
    """The same for L2M; 0 when there is none."""
    dispatch_seconds: float
    """Host time to start one inference; added to the device time in reports of latency."""
    tae_macs_per_cycle: float
    """Multiply-accumulates of int8 by int8, counted over padded extents."""
    tae_int16_int8_ratio: float
    """Rate of int16 activations with int8 weights, as a fraction of the int8 rate."""
    tae_int16_int16_ratio: float
    """The same for int16 activations with int16 weights."""
    tae_width: int
    """Output columns (rows of a matrix product) are padded to a multiple of this."""
    tae_input_channels: int
    """Input channels of a convolution (the summed axis of a matrix product) are padded to a multiple of this."""
    tae_output_channels: int
    """Output channels are padded to a multiple of this."""
    tae_depthwise_gain: float
    """Speed-up of grouped convolutions over packing groups block-diagonally into the array."""
    tae_output_elements_per_cycle: float
    """Rate of the epilogue (bias, rescale, clamp, residual), which follows the accumulation."""
    vector_int8_elements_per_cycle: float
    """Rate of elementwise work on int8."""
    vector_int16_elements_per_cycle: float
    """Rate of elementwise work on int16."""
    aae_elements_per_cycle: float
    """Window taps that pooling and resizing read per cycle."""
    trans_bytes_per_cycle: float
    """Rate at which the unit for layout moves bytes within L1M."""
    vpu_elements_per_cycle: float
    """Rate of the floating-point vector unit."""
    spu_elements_per_cycle: float
    """Rate of the scalar unit."""
    host_bytes_per_second: float
    """Rate at which the host CPU works through the operands of what no unit can do."""
    issue_cycles: int
    """Fixed cost of an instruction on any unit."""
    dma_latency_cycles: int
    """Cycles before the first byte of a DMA transfer moves."""
    memory_alignment: int
    """Buffers in every memory start at a multiple of this."""
    io_alignment: int
    """Row stride of inputs and outputs in DDR, when they are padded."""
    multiplier_bits: int
    """Bits of a requantisation multiplier for int8 results."""
    high_multiplier_bits: int
    """The same for int16 and int32 results."""
    conv_output_types: tuple[str, ...]
    """Element types that a convolution can have as its result."""
    conv_weight_types: tuple[str, ...]
    """Element types of a convolution's weights."""
    matmul_types: tuple[str, ...]
    """Element types of the operands of a matrix product."""
    int16_accumulator_bits: int
    """Bits of the sums of int16 activations, 32 or 48; those of int8 have 32."""
    vector_types: tuple[str, ...]
    """Element types that elementwise units work on."""
    max_conv_kernel: int
    """Largest extent of a convolution's window; longer ones are cut into pieces."""
    max_pool_kernel: int
    """Largest extent of a pooling window."""
    max_stride: int
    """Largest stride of a window."""
    max_pad: int
    """Largest padding on one side."""
    max_dilation: int
    """Largest distance of neighbouring taps; wider ones are taken one at a time."""
    max_dilated_stride: int
    """Largest stride of a window whose taps lie apart."""
    max_kernel_elements: int
    """Most weights that one output channel sums over."""
    max_extent: int
    """Largest extent of any axis of a unit's operand."""

    def __post_init__(self) -> None:
        problems = [*_not_positive(self), *_bad_types(self)]
        for key in ("tae_width", "tae_input_channels", "tae_output_channels", "memory_alignment", "io_alignment"):
            value = getattr(self, key)
            if value < 1 or value & (value - 1):
                problems.append(f"{key} = {value} is not a power of two")
        if (self.l2m_bytes > 0) != (self.l2m_bytes_per_second > 0):
            problems.append("l2m_bytes and l2m_bytes_per_second are both zero or both above zero")
        if not 0 < self.tae_int16_int16_ratio <= self.tae_int16_int8_ratio <= 1:
            problems.append("0 < tae_int16_int16_ratio <= tae_int16_int8_ratio <= 1 does not hold")
        if self.int16_accumulator_bits not in (32, 48):
            problems.append(f"int16_accumulator_bits = {self.int16_accumulator_bits} is neither 32 nor 48")
        if not 2 <= self.multiplier_bits <= self.high_multiplier_bits <= 31:
            problems.append("2 <= multiplier_bits <= high_multiplier_bits <= 31 does not hold")
        unit = max(self.memory_alignment, 1)
        if self.l1m_bytes % unit or self.l2m_bytes % unit:
            problems.append(f"l1m_bytes and l2m_bytes are not multiples of memory_alignment = {self.memory_alignment}")
        if self.cores > 28:
            problems.append(f"cores = {self.cores}: queue numbers have room for 28")
        if problems:
            raise BackendError(
                7, f"march '{self.name}' contradicts itself", why="; ".join(problems), lever="mend the march file"
            )

    @property
    def has_float_results(self) -> bool:
        """Whether a convolution, a linear layer or a matrix product can have float32 as its result."""
        return "float32" in self.conv_output_types

    @property
    def ddr_bytes_per_cycle(self) -> float:
        """Rate of DDR in bytes per cycle."""
        return self.ddr_bytes_per_second / self.clock_hz

    @property
    def l2m_bytes_per_cycle(self) -> float:
        """Rate of L2M in bytes per cycle."""
        return self.l2m_bytes_per_second / self.clock_hz


@dataclass(frozen=True, slots=True)
class Source:
    """Where one number of a march comes from; `confidence` is one of `CONFIDENCES`."""

    key: str
    value: int | float | str | tuple[str, ...]
    source: str
    confidence: str


_HINTS = get_type_hints(March)
_ADDED: Mapping[str, object] = {
    "conv_weight_types": ("int8", "int16"),
    "matmul_types": ("int8", "int16"),
    "int16_accumulator_bits": 48,
    "max_dilated_stride": 256,
    "max_kernel_elements": 1 << 31,
}
"""What binaries that were written before a number was told apart mean by it."""
_MAY_BE_ZERO = {"l2m_bytes", "l2m_bytes_per_second", "issue_cycles", "dma_latency_cycles", "dispatch_seconds"}


def _not_positive(march: March) -> list[str]:
    problems: list[str] = []
    for field in fields(march):
        value = getattr(march, field.name)
        if isinstance(value, int | float):
            if not math.isfinite(value) or value < 0 or (value == 0 and field.name not in _MAY_BE_ZERO):
                problems.append(f"{field.name} = {value} is not above zero")
        elif not value:
            problems.append(f"{field.name} is empty")
    return problems


def _bad_types(march: March) -> list[str]:
    keys = ("conv_output_types", "conv_weight_types", "matmul_types", "vector_types")
    listed: dict[str, tuple[str, ...]] = {key: getattr(march, key) for key in keys}
    return [
        f"{key} names '{t}', not one of {list(_TYPES)}"
        for key, types in listed.items()
        for t in types
        if t not in _TYPES
    ]


def _typed(key: str, value: object, where: str) -> int | float | str | tuple[str, ...]:
    """`value` as the field's type. Raises BackendError HB0506."""
    hint = _HINTS[key]
    if isinstance(value, int) and abs(value) > _LARGEST:
        why, lever = f"numbers are at most {_LARGEST}", f"mend '{key}'"
        raise BackendError(6, f"'{key}' is a number of {value.bit_length()} bits", where=where, why=why, lever=lever)
    if hint is str and isinstance(value, str):
        return value
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if get_args(hint) and isinstance(value, list | tuple):
        items = cast(Sequence[object], value)
        names = [item for item in items if isinstance(item, str)]
        if len(names) == len(items):
            return tuple(names)
    wanted = "a list of strings" if get_args(hint) else {str: "a string", int: "an integer", float: "a number"}[hint]
    raise BackendError(
        6, f"'{key}' is {shown(cast(object, value))}", where=where, why=f"{wanted} is wanted", lever=f"mend '{key}'"
    )


def _row(key: str, entry: object, where: str) -> Source:
    if key == "name":
        return Source(key, _typed(key, entry, where), "this file", "invented")
    if not isinstance(entry, Mapping) or set(entry) != {"value", "source", "confidence"}:  # pyright: ignore[reportUnknownArgumentType]
        raise BackendError(
            6, f"'{key}' is {shown(cast(object, entry))}", where=where, why="each number states where it comes from",
            lever=f'write {key} = {{ value = …, source = "…", confidence = "invented" }}',
        )  # fmt: skip
    values: dict[str, Any] = dict(entry)  # pyright: ignore[reportUnknownArgumentType]
    if values["confidence"] not in CONFIDENCES or not isinstance(values["source"], str):
        raise BackendError(
            6,
            f"'{key}' has confidence {shown(values['confidence'])}",
            where=where,
            lever=f"choose one of {list(CONFIDENCES)}",
        )
    return Source(key, _typed(key, values["value"], where), values["source"], values["confidence"])


def _read_table(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LONGEST:
            why, lever = f"it has more than {_LONGEST} bytes", "check the path"
            raise BackendError(2, f"march file {path} cannot be read", why=why, lever=lever)
        text = path.read_text(encoding="utf-8")
        if any(line.count(".") > _DOTS for line in text.splitlines()):
            why = f"a line has more than {_DOTS} dots"  # the parser takes quadratic time for keys of many parts
            raise BackendError(3, f"march file {path.name} is not read", why=why, lever="mend the file")
        return tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise BackendError(2, f"march file {path} cannot be read", why=str(why), lever="check the path") from None
    except (ValueError, RecursionError) as error:  # the parser lets through what it meets beside its own errors
        raise BackendError(3, f"march file {path.name} is not TOML", why=str(error), lever="mend the file") from None


def _path_of(name_or_path: str | Path) -> Path:
    if name_or_path in MARCHES:
        return _FOLDER / f"{name_or_path}.toml"
    lever = f"choose one of {', '.join(MARCHES)}, or give the path of a .toml file"
    path = checked_path(name_or_path, lambda given, _: BackendError(1, f"march is {given}", lever=lever))
    if path.suffix != ".toml":
        raise BackendError(1, f"there is no march '{name_or_path}'", lever=lever)
    return path


@cache
def _stock(name: str) -> tuple[Source, ...]:
    return tuple(sources(name))


def sources(name_or_path: str | Path) -> list[Source]:
    """Every number of a march with its source, in the order of the fields. Raises BackendError as `load_march`.

    A file may name a stock march as its `base` and then states only what differs.
    """
    path = _path_of(name_or_path)
    table, where = _read_table(path), f"march file {path.name}"
    base = table.pop("base", None)
    rows: dict[str, Source] = {}
    if base is not None:
        if base not in MARCHES:
            raise BackendError(
                1,
                f"there is no march {shown(base)} to build on",
                where=where,
                lever=f"choose one of {', '.join(MARCHES)}",
            )
        rows = {row.key: row for row in _stock(base)}
    known = [field.name for field in fields(March)]
    for key, entry in table.items():
        if key not in known:
            raise BackendError(
                4, f"unknown key '{key}'", where=where, lever="remove it; the keys are those of nash-e.toml"
            )
        rows[key] = _row(key, entry, where)
    if missing := [key for key in known if key not in rows]:
        raise BackendError(
            5, f"missing key '{missing[0]}'", where=where, why=f"{len(missing)} of {len(known)} keys are missing",
            lever='add it, or build on a stock march with base = "nash-e"',
        )  # fmt: skip
    return [rows[key] for key in known]


def load_march(name_or_path: str | Path | March) -> March:
    """A stock march by name, or one from a `.toml` file.

    Raises BackendError: HB0501 unknown march, HB0502 unreadable file, HB0503 not TOML, HB0504 unknown key, HB0505
    missing key, HB0506 ill-typed value, HB0507 numbers that contradict each other.
    """
    if isinstance(name_or_path, March):
        return name_or_path
    return march_from_values({row.key: row.value for row in sources(name_or_path)})


def march_values(march: March) -> dict[str, Any]:
    """The plain values of a march, for JSON; `march_from_values` is the inverse."""
    values: dict[str, Any] = asdict(march)
    return {key: list(cast(tuple[str, ...], v)) if isinstance(v, tuple) else v for key, v in values.items()}


def march_from_values(values: Mapping[str, object]) -> March:
    """A march from plain values, also of a binary that was written before some were told apart. Raises BackendError HB0504 to
    HB0507."""
    values = {**_ADDED, **values}
    where = f"march '{values.get('name', '?')}'"
    known = [field.name for field in fields(March)]
    if extra := sorted(set(values) - set(known)):
        raise BackendError(4, f"unknown key '{extra[0]}'", where=where, lever="remove it")
    if missing := [key for key in known if key not in values]:
        raise BackendError(5, f"missing key '{missing[0]}'", where=where, lever="add it")
    typed: dict[str, Any] = {key: _typed(key, values[key], where) for key in known}
    return March(**typed)
