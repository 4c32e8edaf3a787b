"""What is measured, and how: compile cost in a process of its own, run times in turns with onnxruntime's int8 kernels.

Times are taken in rounds: interpreter, simulator and onnxruntime run a few times each, one after the other, and each round
gives one ratio of neighbours. The median of the ratios is reported: what else the machine does meets all three alike.
onnxruntime runs the same network quantised by its own quantizer with uint8 activations and int8 weights, fully optimised,
with inputs and outputs bound to their buffers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import onnxruntime

from backends import Hbm
from backends.nash.lower import lower
from backends.nash.perf.roofline import roofline
from backends.nash.simulator import simulate
from hbir import Module, load, save
from hbir.march import load_march
from tests.compiled import integer_module
from tests.networks import evaluation
from tests.quantized_networks import quantized_network

__all__ = ["CompileCost", "Model", "RunTimes", "compile_cost", "model_figures", "prepare", "run_times"]

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = "uint8"
"""Variant of `tests.quantized_networks` that onnxruntime runs."""


@dataclass(frozen=True)
class CompileCost:
    """Seconds of `backends.compile` with default options; peak memory of its process, and what stood there before it, MiB."""

    seconds: float
    peak_mib: float
    before_mib: float


@dataclass(frozen=True)
class RunTimes:
    """Medians in milliseconds on `threads` threads; ratios are medians of the rounds' own ratios."""

    threads: int
    interpreter_ms: float
    simulator_ms: float
    onnxruntime_ms: float
    interpreter_to_onnxruntime: float
    simulator_to_interpreter: float


@dataclass(frozen=True)
class Model:
    """Figures of the compiled model that no clock has a part in."""

    cycles: int
    microseconds: float
    roofline_cycles: float
    limited_by: str
    ddr_bytes: int
    compulsory_bytes: int
    file_bytes: int
    constant_bytes: int
    """Weights, biases, multipliers, shifts and tables as the integer network states them, without padding."""
    instructions: int


def prepare(name: str, folder: Path) -> Path:
    """Import, calibrate and convert a network for nash-e, and save it."""
    path = folder / f"{name}.mlir"
    save(integer_module(name), path)
    return path


def compile_cost(source: Path, target: Path, opt: int = 2) -> CompileCost:
    """Compile a saved module in a fresh process."""
    command = [sys.executable, "-m", "tests.benchmarks.compile_one", str(source), str(target), str(opt)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return CompileCost(**json.loads(done.stdout))


def model_figures(source: Path, binary: Path) -> Model:
    """Cycles, traffic and sizes of a binary."""
    (model,) = Hbm(binary).models
    timing, bound = simulate(model), roofline(model)
    graph = lower(load(source), load_march(model.march.name))
    return Model(
        timing.cycles,
        1e6 * timing.seconds,
        bound.cycles,
        bound.limited_by,
        timing.ddr_read + timing.ddr_written,
        bound.compulsory_bytes,
        binary.stat().st_size,
        sum(array.nbytes for node in graph.nodes for array in node.constants.values()),
        len(model.program),
    )


def _reference(name: str, threads: int) -> Callable[[], object]:
    """onnxruntime on the QDQ model, with bound buffers."""
    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session: Any = onnxruntime.InferenceSession(
        str(quantized_network(name, REFERENCE)), options, providers=["CPUExecutionProvider"]
    )
    binding = session.io_binding()
    for key, array in evaluation(name, 1).inputs[0].items():
        binding.bind_cpu_input(key, array)
    for output in session.get_outputs():
        binding.bind_output(output.name)
    return lambda: session.run_with_iobinding(binding)


def _seconds(run: Callable[[], object], calls: int) -> float:
    """Mean of a few calls in a row, after the others' threads have stopped spinning in wait of more work."""
    time.sleep(0.02)
    run()
    begin = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - begin) / calls


def run_times(name: str, source: Path, binary: Path, rounds: int, threads: int) -> RunTimes:
    """Times of this process, whose kernels must have been started with as many threads (NUMBA_NUM_THREADS)."""
    module: Module = load(source)
    feed = evaluation(name, 1).inputs[0]
    interpreter = module[0].prepare()
    simulator = Hbm(binary)[0]
    arrays = [feed[argument.name] for argument in module[0].flatten_inputs]
    runs: Sequence[Callable[[], object]] = (
        lambda: interpreter.run(arrays),
        lambda: simulator.feed(feed),
        _reference(name, threads),
    )
    for run in runs:
        run()
    calls = max(1, min(10, round(0.1 / _seconds(runs[0], 1))))
    table = [[_seconds(run, calls) for run in runs] for _ in range(rounds)]
    interpreter_ms, simulator_ms, reference_ms = (1e3 * median(row[i] for row in table) for i in range(3))
    return RunTimes(
        threads,
        interpreter_ms,
        simulator_ms,
        reference_ms,
        median(row[0] / row[2] for row in table),
        median(row[1] / row[0] for row in table),
    )


def run_times_apart(name: str, source: Path, binary: Path, rounds: int, threads: int) -> RunTimes:
    """`run_times` in a process with that many threads."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "times.json"
        environment = {**os.environ, "NUMBA_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
        arguments = [name, str(source), str(binary), str(rounds), str(threads), str(result)]
        subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.run_one", *arguments], cwd=ROOT, env=environment, check=True
        )
        return RunTimes(**json.loads(result.read_text("utf-8")))
