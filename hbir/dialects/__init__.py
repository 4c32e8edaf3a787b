"""The dialects: `hbir` (NHWC float graph), `qat` (fake quantisation), `quant` (quantised types), `quantized` (integers)."""

from __future__ import annotations

from xdsl.ir import Dialect

__all__ = ["all_dialects"]


def all_dialects() -> tuple[Dialect, ...]:
    """Every dialect of the project, with the operations that installed packages add through entry points."""
    from hbir.dialects.hbir import Hbir
    from hbir.dialects.qat import Qat
    from hbir.dialects.quant import Quant
    from hbir.dialects.quantized import Quantized

    return (Hbir, Qat, Quant, Quantized)
