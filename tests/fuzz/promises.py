"""What every pass owes to any module: checked on generated ones, with few examples by the tests and with many by fuzzing."""

from __future__ import annotations

from hbir.module import Module
from hbir.testing import assert_round_trips, assert_same_semantics
from passes import Pipeline, Promise, load_pass

__all__ = ["DIALECTS", "keep_promise"]

DIALECTS = {
    "canonicalize": ("hbir",),
    "coarsen-grids": ("hbir", "qat"),
    "cancel-transposes": ("hbir", "qat"),
    "correct-bias": ("hbir", "qat"),
    "dead-code": ("hbir", "quantized"),
    "expand-conv-transpose": ("hbir", "qat"),
    "expand-resize": ("hbir", "qat", "quantized"),
    "fix-lut": ("quantized",),
    "fold-batch-norm": ("hbir",),
    "fold-constants": ("hbir", "qat"),
    "fold-requantize": ("quantized",),
    "fuse-activations": ("hbir",),
    "fuse-conv-add-relu": ("hbir",),
    "high-precision-output": ("quantized",),
    "insert-fake-quant": ("hbir",),
    "merge-duplicates": ("hbir", "qat", "quantized"),
    "narrow-movement": ("hbir", "quantized"),
    "prove-intervals": ("quantized",),
    "quantize": ("hbir", "qat"),
    "replace-divisions": ("hbir", "qat"),
    "replace-padding": ("hbir", "qat"),
    "unify-scales": ("hbir", "qat"),
}
"""The dialects of the modules that each pass is tried on; a test fails when a pass is missing."""


def keep_promise(name: str, module: Module) -> None:
    """Run a pass and look at everything it owes: its promise, its argument left alone, names, text, the same result again.

    Raises AssertionError or HbError.
    """
    text = str(module)
    changed = Pipeline(name, verify="exec").run(module)
    assert str(module) == text, "a pipeline leaves its argument alone"
    assert_round_trips(changed)
    assert [a.name for a in changed[0].flatten_outputs] == [a.name for a in module[0].flatten_outputs]
    if load_pass(name).promise is Promise.EXACT:
        assert_same_semantics(module, changed)
    assert str(Pipeline(name).run(module)) == str(changed), "the same input gives the same output"
