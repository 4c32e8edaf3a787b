"""Lower bounds: how fast a model could run if every resource it needs did nothing but the work that it must do.

**Work.** A compute unit's work is the sum over its instructions of `instruction_cycles` less the fixed issue cost: for the
tensor engine the padded multiply-accumulates at the rate of their widths plus the epilogue, for the others elements over
rate. Work that the compiler added (halo rows computed twice, a width split into tiles that pad worse) is in it; a layer whose
placement row states `cycles`, the work of the whole layer in one piece, is taken at that instead.

**Network.** For each of TAE, VAE, AAE, VPU, SPU and HOST: its work, divided by the cores that the model uses (HOST: by one).
For DDR: the compulsory bytes, that is constants, inputs and outputs, each moved once, at the rate that all cores share. The
bound is the largest of these. Copies (TRANS), intermediate maps in DDR, latencies and issue costs are not in it: a better
compiler may do without them.

**Layer.** The same for the instructions of one layer, with the bytes that they move in fact instead of the compulsory ones,
and with TRANS: the bound of the layer as it was compiled. `limited_by` names the largest: `compute` (TAE), `vector` (VAE, AAE,
VPU, SPU), `layout` (TRANS), `load` or `store` (DDR, whichever of the two moves more bytes), `host`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from backends.nash.hbm import Model
from backends.nash.isa import DDR, UNITS, Decoded, instruction_cycles

__all__ = ["LIMITS", "LayerBound", "Roofline", "roofline"]

LIMITS: Mapping[str, str] = {
    "TAE": "compute",
    "VAE": "vector",
    "AAE": "vector",
    "VPU": "vector",
    "SPU": "vector",
    "TRANS": "layout",
    "HOST": "host",
}
"""What a layer is limited by when this unit's work is the largest."""

_NETWORK = ("TAE", "VAE", "AAE", "VPU", "SPU", "HOST")


@dataclass(frozen=True, slots=True)
class LayerBound:
    """A layer's work in cycles by unit, spread over the cores, its traffic, and the bound that follows."""

    layer: str
    work: Mapping[str, float]
    loaded_bytes: int
    stored_bytes: int
    """Bytes from and to DDR."""
    l2m_bytes: int
    cycles: float
    limited_by: str


@dataclass(frozen=True, slots=True)
class Roofline:
    """`resources` maps TAE, VAE, AAE, VPU, SPU, HOST and DDR to the cycles that each needs; `cycles` is the largest."""

    resources: Mapping[str, float]
    cycles: float
    limited_by: str
    compulsory_bytes: int
    microseconds: float
    layers: tuple[LayerBound, ...]


@dataclass(slots=True)
class _Sums:
    work: dict[str, float]
    loaded: int = 0
    stored: int = 0
    l2m: int = 0


def _add(sums: _Sums, d: Decoded, model: Model) -> None:
    if d.opcode.unit in ("LOAD", "STORE"):
        far = d.operands["src" if d.opcode.unit == "LOAD" else "dst"]
        if far.space != DDR:
            sums.l2m += far.nbytes
        elif d.opcode.unit == "LOAD":
            sums.loaded += far.nbytes
        else:
            sums.stored += far.nbytes
    elif d.opcode.unit:
        cycles = instruction_cycles(model.march, d.opcode.name, d.operands, d.params) - model.march.issue_cycles
        sums.work[d.opcode.unit] = sums.work.get(d.opcode.unit, 0.0) + cycles


def _layer_bound(name: str, sums: _Sums, model: Model) -> LayerBound:
    march, cores = model.march, model.memories.cores
    spread = {unit: cycles / (1 if unit == "HOST" else cores) for unit, cycles in sums.work.items()}
    candidates = [(cycles, LIMITS[unit]) for unit, cycles in spread.items()]
    traffic = (sums.loaded + sums.stored) / march.ddr_bytes_per_cycle
    if sums.l2m:
        traffic = max(traffic, sums.l2m / march.l2m_bytes_per_cycle)
    candidates.append((traffic, "load" if sums.loaded + sums.l2m >= sums.stored else "store"))
    cycles, limit = max(candidates, key=lambda item: item[0])
    return LayerBound(name, spread, sums.loaded, sums.stored, sums.l2m, cycles, limit if cycles else "")


def roofline(model: Model) -> Roofline:
    """The bounds of a model; see the module's text for their definition. The program must be verified."""
    program, march, cores = model.program, model.march, model.memories.cores
    layers: dict[int, _Sums] = {}
    for d in program.decoded:
        _add(layers.setdefault(d.layer, _Sums({})), d, model)
    names = {index: program.layers[index] if index < len(program.layers) else "" for index in layers}
    whole = _stated_cycles(model)
    total = dict.fromkeys(_NETWORK, 0.0)
    for index, sums in layers.items():
        for unit, cycles in sums.work.items():
            if unit in total:
                total[unit] += min(whole.get((names[index], unit), cycles), cycles)
    resources = {unit: cycles / (1 if unit == "HOST" else cores) for unit, cycles in total.items()}
    compulsory = _constant_bytes(model) + sum(t.view.nbytes for t in (*model.inputs, *model.outputs))
    resources["DDR"] = compulsory / march.ddr_bytes_per_cycle
    limit = max(resources, key=lambda resource: resources[resource])
    bound = resources[limit]
    return Roofline(
        resources,
        bound,
        limit,
        compulsory,
        1e6 * bound / march.clock_hz,
        tuple(_layer_bound(names[index], layers[index], model) for index in sorted(layers)),
    )


def _constant_bytes(model: Model) -> int:
    """Bytes of the constants that the program loads, each once: the gaps that alignment leaves are never moved."""
    constants = model.memories.constants
    loaded = {
        d.operands["src"] for d in model.program.decoded if d.opcode.name == "LOAD" and d.operands["src"].space == DDR
    }
    return min(sum(view.nbytes for view in loaded if view.address < constants), constants)


def _stated_cycles(model: Model) -> dict[tuple[str, str], float]:
    """(layer, unit) -> work of the whole layer in one piece, where placement rows state it."""
    stated: dict[tuple[str, str], float] = {}
    for row in model.placements:
        cycles, unit = row.get("cycles"), row.get("unit")
        if isinstance(cycles, int | float) and unit in UNITS:
            key = (str(row.get("layer", "")), str(unit))
            stated[key] = stated.get(key, 0.0) + float(cycles)
    return stated
