"""From nodes in ONNX's text form to a binary without host calls: what the rewrites of the float network are for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hbir import Module, export
from passes import calibrate, convert
from tests.compiled import assert_equal_outputs, compiled
from tests.hbir.frontends.onnx.models import text_model

__all__ = ["assert_on_units"]


def assert_on_units(
    body: str,
    signature: str,
    constants: Mapping[str, npt.NDArray[Any]],
    *,
    steps: float,
    reach: float = 2.0,
    march: str = "nash-e",
) -> Module:
    """The integer module of a network with one input x: once it is compiled nothing runs on the host, the binary gives what
    the interpreter gives, and no output is further from the float network's than `steps` 255ths of its largest value."""
    module = export(text_model(body, signature, constants=dict(constants)))
    (x,) = module[0].flatten_inputs
    rng = np.random.default_rng(5)
    feeds = [{"x": rng.uniform(-reach, reach, x.type.shape).astype(np.float32)} for _ in range(2)]
    integer = convert(calibrate(module, feeds, observer="max"), march)
    binary = compiled(integer, opt=1)
    host = [(row["layer"], row["reason"]) for row in binary.models[0].placements if row["unit"] == "HOST"]
    assert not host
    assert_equal_outputs(integer, binary, feeds)
    assert_equal_outputs(integer, binary, feeds[:1], check=True)
    for name, wanted in module[0].feed(feeds[0]).items():
        found = integer[0].feed(feeds[0])[name]
        assert np.abs(found - wanted).max() <= steps / 255 * np.abs(wanted).max(), name
    return integer
