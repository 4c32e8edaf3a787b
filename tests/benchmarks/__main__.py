"""`python -m tests.benchmarks [--json] [--rounds N] [NETWORK ...]`: what the networks cost, as one table.

Compiling is for nash-e with default options. Nothing here passes or fails; the targets are stated below the table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tests.benchmarks.measure import (
    CompileCost,
    Model,
    RunTimes,
    compile_cost,
    model_figures,
    prepare,
    run_times_apart,
)
from tests.compiled import PIP_NETWORKS

NETWORKS = (*PIP_NETWORKS, "resnet50")
THREADS = (1, 2)

TARGETS = (
    "targets: compile of mobilenetv2 <= 5 s, interpreter <= 4 x onnxruntime, simulator <= 2 x interpreter, "
    "cycles <= 2.5 x roofline, hbm <= 1.15 x constants"
)


@dataclass(frozen=True)
class Row:
    """All figures of one network."""

    network: str
    compile: CompileCost
    model: Model
    times: tuple[RunTimes, ...]


def measure(name: str, rounds: int) -> Row:
    """All figures of one network."""
    with tempfile.TemporaryDirectory() as folder:
        source, binary = prepare(name, Path(folder)), Path(folder) / "net.hbm"
        cost = compile_cost(source, binary)
        times = tuple(run_times_apart(name, source, binary, rounds, threads) for threads in THREADS)
        return Row(name, cost, model_figures(source, binary), times)


def conditions() -> dict[str, str]:
    """Machine, versions and date."""
    model = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = information.read_text("utf-8").splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    found = {"machine": f"{model}, {os.cpu_count()} processors", "system": platform.platform(terse=True)}
    found |= {"python": platform.python_version()}
    for package in ("numpy", "numba", "onnxruntime", "xdsl"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    return found | {"date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")}


HEADER = (
    f"{'network':18s} {'compile':>8s} {'peak':>6s} {'(before)':>8s} {'cycles':>9s} {'us':>7s} {'x roof':>6s} {'limit':>5s}"
    f" {'DDR x':>6s} {'hbm x':>6s} {'instr':>6s}   {'threads':>7s} {'interp':>8s} {'sim':>8s} {'ort':>8s}"
    f" {'interp/ort':>10s} {'sim/interp':>10s}"
)


def lines(row: Row) -> list[str]:
    """The row as text, one line for each number of threads."""
    c, m = row.compile, row.model
    first = (
        f"{row.network:18s} {c.seconds:6.2f} s {c.peak_mib:6.0f} {c.before_mib:8.0f} {m.cycles:9d} {m.microseconds:7.1f}"
        f" {m.cycles / m.roofline_cycles:6.2f} {m.limited_by:>5s} {m.ddr_bytes / m.compulsory_bytes:6.2f}"
        f" {m.file_bytes / m.constant_bytes:6.2f} {m.instructions:6d}"
    )
    return [
        f"{first if index == 0 else '':{len(first)}s}   {t.threads:7d} {t.interpreter_ms:8.2f} {t.simulator_ms:8.2f}"
        f" {t.onnxruntime_ms:8.2f} {t.interpreter_to_onnxruntime:10.2f} {t.simulator_to_interpreter:10.2f}"
        for index, t in enumerate(row.times)
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"of {', '.join(NETWORKS)}; all by default")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--rounds", type=int, default=11, help="rounds of paired measurement (default 11)")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.networks if name not in NETWORKS]
    if unknown:
        parser.error(f"there is no network {unknown[0]}; choose of {', '.join(NETWORKS)}")
    where = conditions()
    rows: list[Row] = []
    if not arguments.json:
        print("; ".join(f"{key} {value}" if key in ("numpy", "numba", "onnxruntime", "xdsl", "python") else value
                        for key, value in where.items()))  # fmt: skip
        print("compile: seconds and MiB in a fresh process, nash-e, opt 2; times in milliseconds")
        print(HEADER, flush=True)
    for name in arguments.networks or NETWORKS:
        row = measure(name, arguments.rounds)
        rows.append(row)
        if not arguments.json:
            print("\n".join(lines(row)), flush=True)
    if arguments.json:
        json.dump({"conditions": where, "networks": [asdict(row) for row in rows]}, sys.stdout, indent=1)
        print()
    else:
        print(TARGETS)


if __name__ == "__main__":
    main()
