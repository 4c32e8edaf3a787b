"""Frames per second and latency when several host threads submit frames to the simulated device."""

from __future__ import annotations

import csv
import io
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.nash.hbm import Model
from backends.nash.simulator import simulate
from hbir.errors import ConfigError
from hbir.ir.files import write_text
from tools.refusals import Refusal

if TYPE_CHECKING:
    from backends import HbmFunction

__all__ = ["Throughput", "parse_cores", "throughput", "wall_seconds", "write_profile"]

# Enough frames for the rate of several groups of cores, which share DDR, to settle.
_FRAMES_PER_GROUP = 4


@dataclass(frozen=True, slots=True)
class Throughput:
    """Times in seconds. Latencies are what a thread sees from submitting a frame to having its result."""

    threads: int
    frames: int
    groups: int
    device_seconds: float
    """One frame alone."""
    dispatch_seconds: float
    frames_per_second: float
    average_latency_seconds: float
    shortest_seconds: float
    longest_seconds: float
    run_seconds: float

    @property
    def total_latency_seconds(self) -> float:
        """The latencies of all frames together."""
        return self.average_latency_seconds * self.frames


def parse_cores(text: str, model: Model) -> int:
    """How many groups of cores `--core_id` allows. Raises ConfigError HB0813."""
    march, cores = model.march, model.memories.cores
    if not re.fullmatch(r"[0-9]{1,4}(,[0-9]{1,4})*", text):
        raise ConfigError(Refusal.VALUE, f"core_id '{text}' is no list of cores", lever="write 0 for any, or 1,2")
    chosen = [int(part) for part in text.split(",")]
    if chosen == [0]:
        return march.cores // cores
    why = f"{march.name} has cores 1 to {march.cores}, and the model takes {cores} at a time"
    if 0 in chosen:
        why = "0 stands for any core, and excludes a list"
    elif len(set(chosen)) < len(chosen):
        why = f"core {next(core for core in chosen if chosen.count(core) > 1)} is named twice"
    elif max(chosen) <= march.cores and len(chosen) >= cores:
        return len(chosen) // cores
    every = ",".join(map(str, range(1, march.cores + 1)))
    raise ConfigError(
        Refusal.VALUE, f"core_id '{text}' does not fit", why=why, lever=f"write 0 for any, or some of {every}"
    )


def throughput(model: Model, groups: int, threads: int, frames: int) -> Throughput:
    """`threads` threads in a closed loop: dispatch (each thread for itself), then the device, one frame a group at a time.

    The rate is the smaller of what the threads can ask for, threads / (dispatch + device), and of what the device gives, the
    rate of the timing simulation with its cores at work together; the mean latency follows by Little's law as threads / rate.
    """
    alone = simulate(model).seconds
    used = min(groups, threads)
    dispatch = model.march.dispatch_seconds
    together = simulate(model, frames=_FRAMES_PER_GROUP * used, slots=used) if used > 1 else None
    device_rate = together.frames_per_second if together is not None else (1 / alone if alone else np.inf)
    asked = threads / (dispatch + alone) if dispatch + alone else np.inf
    rate = float(min(asked, device_rate))
    mean = threads / rate if np.isfinite(rate) else 0.0
    # The first frame of a thread finds the device free; one that finds every thread before it waits longest.
    slowest = max(
        mean, dispatch + -(-threads // used) * max(alone, *(together.frame_seconds if together is not None else (0.0,)))
    )
    return Throughput(
        threads, frames, used, alone, dispatch, rate, mean, min(dispatch + alone, mean), slowest, frames / rate
    )


def wall_seconds(function: HbmFunction, runs: int = 3) -> float:
    """Shortest wall time of a frame in the functional simulator on this computer, inputs of zeros."""
    feeds = {t.name: np.zeros(t.shape, t.dtype) for t in function.flatten_inputs}
    best = np.inf
    for _ in range(runs):
        begin = time.perf_counter()
        function.feed(feeds)
        best = min(best, time.perf_counter() - begin)
    return float(best)


def write_profile(folder: Path, model: Model, values: Mapping[str, Any], result: Throughput) -> None:
    """`profiler.log` (version, two JSON documents with a line of asterisks between) and `profiler.csv`, times in ms."""

    def times(seconds: float) -> dict[str, float]:
        return {"avg_time": 1e3 * seconds, "max_time": 1e3 * seconds, "min_time": 1e3 * seconds}

    stages = {
        "Stage1-GenerateBpuTask": times(result.dispatch_seconds),
        "Stage2-BpuCoreProcess": times(result.device_seconds),
        "Total": times(result.dispatch_seconds + result.device_seconds),
    }
    latency = {
        "model_latency": {f"Node-0-BPU-{model.name}_bpu_segment_0": stages},
        "processor_latency": {
            "BPU_inference_time_cost": times(result.device_seconds),
            "CPU_inference_time_cost": times(0.0),
        },
        "task_latency": {"TaskRunningTime": times(result.average_latency_seconds)},
    }
    first = {key: values[key] for key in ("perf_result", "running_condition")}
    documents = [json.dumps(value, indent=2, ensure_ascii=False) for value in (first, latency)]
    write_text(folder / "profiler.log", f"{model.tool_version or 'source'}\n{documents[0]}\n***\n{documents[1]}\n")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["thread_num", "frame_count", "latency_ms", "FPS"])
    writer.writerow([result.threads, result.frames, 1e3 * result.average_latency_seconds, result.frames_per_second])
    write_text(folder / "profiler.csv", text.getvalue())
