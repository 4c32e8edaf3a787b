"""Runs the `.mlir` files beside the tests: a pipeline in the first line, CHECK lines for what comes out, all in process.

`BLOB(f32 2x3: 1 2 3 4 5 6)` in a file stands for a constant's bytes, which go to the module's store. A file is split at
`// -----`; a part with `// ERROR: regular expression` must be refused that way.
"""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from filecheck.finput import FInput
from filecheck.matcher import Matcher
from filecheck.options import Options
from filecheck.parser import Parser, pattern_for_opts

from hbir.errors import HbError
from hbir.ir.constants import ConstantStore
from hbir.ir.locations import tag_location
from hbir.ir.text import print_module
from hbir.module import Module
from passes import Pipeline

__all__ = ["run_file"]

_DTYPES = {"f32": np.float32, "i8": np.int8, "i16": np.int16, "i32": np.int32}
_BLOB = re.compile(r"BLOB\((\w+) *: *([^)]*)\)")


def _module(text: str) -> Module:
    store = ConstantStore()

    def blob(found: re.Match[str]) -> str:
        put = store.put(np.array([float(n) for n in found[2].split()], _DTYPES[found[1]]))
        return f'#hbir.blob<"{put.digest.data}", {put.size.data}>'

    return Module.parse(_BLOB.sub(blob, text), store)


def _check(output: str, checks: str, path: Path) -> None:
    options = Options(match_filename=str(path), check_prefixes=["CHECK"])
    parser = Parser(options, io.StringIO(checks), *pattern_for_opts(options))
    said = io.StringIO()
    with redirect_stdout(said):
        status = Matcher(options, FInput("-", output), parser).run()
    assert status == 0, f"{said.getvalue()}\n{output}"


def run_file(path: Path) -> None:
    """Run one file; raises AssertionError with FileCheck's words and the output."""
    whole = path.read_text()
    pipeline = re.match(r"// RUN: (\S+)\n", whole)
    assert pipeline is not None, f"{path.name} does not start with `// RUN: pipeline`"
    for part in whole.split("// -----\n"):
        wanted = re.search(r"^// ERROR: (.*)$", part, re.MULTILINE)
        if wanted is not None:
            with pytest.raises(HbError, match=wanted[1]):
                Pipeline(pipeline[1], verify="exec").run(_module(part))
            continue
        result = Pipeline(pipeline[1], verify="exec").run(_module(part))
        for op in result.op.walk():  # which pass made what is tested elsewhere
            op.location = tag_location(op.location, ())
        _check(print_module(result.op, locations="loc(" in part), part, path)
