"""A second, independent meaning of converted modules: the integers of the `quantized` dialect on torch tensors.

Written from the formulas of the operations, not from the kernels: that a prepared model and the interpreter agree is a
statement about two implementations. It is exact (no tolerance anywhere), runs where the tensors are, and computes regions of
a function one after another, as a forward pass reaches them::

    evaluator = Evaluator(convert(module, "nash-e")[0], "cpu")
    run = evaluator.start()
    run.enter(0, x)
    y = run.leave(0)

Integers of up to 16 bits are held as float32 and accumulators as float64, in which every step here is exact; each bound is
derived where it is used. Float operations that stayed on the host need the interpreter's own arithmetic (`host`).
"""

from __future__ import annotations

from hbir.torch.integers.evaluator import Evaluator, Run

__all__ = ["Evaluator", "Run"]
