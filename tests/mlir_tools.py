"""tosa-opt as the judge of our bytecode: what it reads from us, and what we read from it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.dialects.func import FuncOp

from hbir import load, save
from hbir.ir.files import used_blobs
from hbir.module import Module
from hbir.testing.checks import tosa_opt

__all__ = ["check_both_directions", "joined", "run_tosa_opt"]


def run_tosa_opt(*arguments: str | Path) -> str:
    program = tosa_opt()
    assert program is not None, "tosa-opt is missing: pip install tosa-tools"
    command = [str(program), "--allow-unregistered-dialect", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:2000]
    return done.stdout


def _as_text(path: Path) -> str:
    return run_tosa_opt("--mlir-print-op-generic", "--mlir-print-local-scope", "--mlir-print-debuginfo", path)


def joined(parts: list[Module]) -> Module:
    """The functions of several modules in one: tosa-opt takes longer to start than to read a hundred of them."""
    whole = Module(ModuleOp([]), parts[0].constants)
    for number, part in enumerate(parts):
        for function in part.op.body.block.ops:
            assert isinstance(function, FuncOp)
            copy = function.clone()
            copy.properties["sym_name"] = StringAttr(f"f{number}")
            copy.location = function.location
            whole.op.body.block.add_op(copy)
        for blob in used_blobs(part.op):
            whole.constants.add(blob.digest.data, part.constants.bytes(blob))
    return whole


def check_both_directions(module: Module, folder: Path) -> None:
    """tosa-opt makes the same text of our bytecode and of our text; we read its bytecode as the same module; and what is read
    is written again byte for byte."""
    ours, theirs = folder / "net.bc", folder / "theirs.bc"
    save(module, ours)
    text = folder / "net.mlir"
    save(module, text)
    assert _as_text(ours) == _as_text(text)
    run_tosa_opt("--emit-bytecode", ours, "-o", theirs)
    back = load(theirs)
    assert str(back) == str(module)
    save(back, folder / "again.bc")
    assert (folder / "again.bc").read_bytes() == ours.read_bytes()
