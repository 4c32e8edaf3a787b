"""Checks on modules: the same meaning before and after, and the same module after a trip through text, bytecode, `tosa-opt`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from hbir.dialects import all_dialects
from hbir.dialects.base import Array
from hbir.ir.bytecode import read_bytecode, write_bytecode
from hbir.ir.files import used_blobs
from hbir.ir.text import print_module
from hbir.module import Function, Module, checked_module
from hbir.testing.checked import checked_count, checked_feeds, checked_function, checked_size
from hbir.testing.values import filled

__all__ = ["assert_round_trips", "assert_same_semantics", "example_feeds", "tosa_opt", "through_tosa_opt"]

# Real quantised types instead of opaque text: the first tosa attribute makes tosa-opt load the quant dialect.
_LOAD_QUANT = "#load = #tosa.rounding_mode<SINGLE_ROUND>\n"


def example_feeds(function: Function, seed: int = 0, reach: float = 1.0) -> dict[str, Array]:
    """A deterministic input set of the function: see `hbir.testing.values.filled` for what is in it.

    Raises IrError HB0245 for what is no function, no seed from 0 up, or no size.
    """
    function, seed, reach = checked_function(function), checked_count("seed", seed, 0), checked_size("reach", reach)
    return {
        argument.name: filled(argument.type.shape, argument.type.np_dtype, seed + index, reach)
        for index, argument in enumerate(function.flatten_inputs)
    }


def assert_same_semantics(
    before: Module,
    after: Module,
    *,
    feeds: Iterable[Mapping[str, Array]] | None = None,
    tolerance: float = 0.0,
) -> None:
    """Both have the same functions, and every function gives the same outputs: names, shapes, dtypes, and values.

    `feeds` are input sets for all functions (default: three of `example_feeds`). Integers compare with `==`; floats may
    differ by `tolerance` times the largest finite value of the output (0: equal). NaN equals NaN. Raises AssertionError;
    IrError HB0236 for what is no module, HB0245 for feeds or a tolerance that are none::

        assert_same_semantics(module, Pipeline("fold-constants,dead-code").run(module))
    """
    before, after, tolerance = checked_module(before), checked_module(after), checked_size("tolerance", tolerance)
    given = None if feeds is None else checked_feeds(feeds)
    names = [[function.name for function in module] for module in (before, after)]
    assert names[0] == names[1], f"functions {names[1]} instead of {names[0]}"
    for old, new in zip(before.functions, after.functions, strict=True):
        for feed in [example_feeds(old, seed) for seed in range(3)] if given is None else given:
            expected, actual = old.feed(feed), new.feed(feed)
            assert list(expected) == list(actual), f"outputs {list(actual)} instead of {list(expected)}"
            for name, value in expected.items():
                _assert_equal(name, value, actual[name], tolerance)


def _assert_equal(name: str, wanted: Array, got: Array, tolerance: float) -> None:
    assert wanted.dtype == got.dtype, f"{name} is {got.dtype} instead of {wanted.dtype}"
    if not tolerance or not np.issubdtype(wanted.dtype, np.floating):
        np.testing.assert_array_equal(got, wanted, err_msg=name, strict=True)
        return
    size = float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0))
    np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * size, err_msg=name, strict=True)


def assert_round_trips(module: Module) -> None:
    """A module that verifies, the same text when it is read and printed again, and the same bytecode. Raises AssertionError.

    Both are done in memory; constants are compared by their hashes, and byte for byte on their way through bytecode.
    Raises IrError HB0236 for what is no module.
    """
    checked_module(module).verify()
    text = str(module)
    again = Module.parse(text, module.constants)
    assert str(again) == text, "the text changes when it is read and printed again"
    kept = {blob.digest.data: module.constants.bytes(blob) for blob in used_blobs(module.op)}
    data = b"".join(write_bytecode(module.op, kept))
    back, blobs = read_bytecode(memoryview(data), all_dialects())
    assert print_module(back) == text, "the text changes when the module comes back from bytecode"
    assert {name: bytes(blob) for name, blob in blobs.items()} == {name: bytes(blob) for name, blob in kept.items()}, (
        "constants change when they come back from bytecode"
    )
    assert b"".join(write_bytecode(back, blobs)) == data, "the bytecode changes when it is read and written again"


def tosa_opt() -> Path | None:
    """The `tosa-opt` of the package `tosa-tools`: beside this interpreter, or on the search path."""
    beside = Path(sys.executable).with_name("tosa-opt")
    found = beside if beside.exists() else shutil.which("tosa-opt")
    return None if found is None else Path(found)


def through_tosa_opt(modules: Sequence[Module], *, quant: bool = False) -> list[str]:
    """The texts that tosa-opt makes of modules, in one run of the program (a start takes 60 ms).

    `quant` loads MLIR's own quant dialect, which then checks every `!quant.uniform`. Raises AssertionError when tosa-opt is
    missing or refuses.
    """
    program = tosa_opt()
    assert program is not None, "tosa-opt is missing: pip install tosa-tools"
    flags = ("--mlir-print-op-generic", "--mlir-print-local-scope", "--mlir-print-debuginfo")
    separator = "// -----"
    text = f"\n{separator}\n".join((_LOAD_QUANT if quant else "") + print_module(module.op) for module in modules)
    split = (f"--split-input-file={separator}", f"--output-split-marker={separator}")
    command = [str(program), "--allow-unregistered-dialect", *flags, *split, "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:2000]
    return [part.strip("\n") + "\n" for part in done.stdout.split(separator)]
