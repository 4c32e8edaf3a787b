"""Takes the times of one network in a process of its own: `python -m tests.benchmarks.run_one NAME NET.mlir NET.hbm ROUNDS
THREADS RESULT.json`, with NUMBA_NUM_THREADS set to THREADS."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from tests.benchmarks.measure import run_times


def main() -> None:
    """Measure and write."""
    name, source, binary, rounds, threads, result = sys.argv[1:]
    times = run_times(name, Path(source), Path(binary), int(rounds), int(threads))
    Path(result).write_text(json.dumps(asdict(times)), "utf-8")


if __name__ == "__main__":
    main()
