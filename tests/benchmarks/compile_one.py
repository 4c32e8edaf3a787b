"""Compiles one saved module in a process of its own: `python -m tests.benchmarks.compile_one NET.mlir NET.hbm OPT`.

Prints JSON: seconds of the compile, peak resident memory of the process in MiB, and what of it was there before the compile
began (interpreter, libraries, the loaded module).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import backends
from hbir import load


def peak_mib() -> float:
    """Peak resident set of this process since it began its program (Linux).

    `resource.getrusage` would do, but a child starts with the peak of the parent that forked it.
    """
    status = Path("/proc/self/status").read_text("ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) / 1024


def main() -> None:
    """Compile and print."""
    source, target, opt = sys.argv[1:]
    module = load(source)
    march = module.march
    if march is None:
        raise SystemExit(f"{source} was not converted for a march")
    before = peak_mib()
    begin = time.perf_counter()
    backends.compile(module, target, march, int(opt))
    print(json.dumps({"seconds": time.perf_counter() - begin, "peak_mib": peak_mib(), "before_mib": before}))


if __name__ == "__main__":
    main()
