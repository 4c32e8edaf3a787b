"""Which files are mutated, and which tests judge each of them."""

from __future__ import annotations

from types import MappingProxyType

__all__ = ["GROUPS"]

_NUMERICS = ("tests/hbir/numerics",)
_ISA = "tests/backends/nash/isa"
_HBM = "tests/backends/nash/hbm"
_VERIFIER = (
    f"{_ISA}/test_hazards.py",
    f"{_ISA}/test_limits.py",
    f"{_ISA}/test_program.py",
    f"{_ISA}/test_rules.py",
    f"{_ISA}/test_verify.py",
    f"{_ISA}/test_written.py",
    f"{_HBM}/test_hbm.py",
)
_FILE = (f"{_HBM}/test_container.py", f"{_HBM}/test_graph.py", f"{_HBM}/test_hbm.py")

GROUPS = MappingProxyType(
    {
        "numerics": {
            "hbir/numerics/functions.py": _NUMERICS,
            "hbir/numerics/intervals.py": _NUMERICS,
            "hbir/numerics/lut.py": _NUMERICS,
            "hbir/numerics/rescale.py": _NUMERICS,
            "hbir/numerics/rounding.py": _NUMERICS,
        },
        "verifier": {
            "backends/nash/hbm/model.py": (*_VERIFIER, *_FILE),
            "backends/nash/hbm/container.py": _FILE,
            "backends/nash/hbm/graph.py": _FILE,
            "backends/nash/isa/verify.py": _VERIFIER,
            "backends/nash/isa/rules.py": _VERIFIER,
            "backends/nash/isa/hazards.py": _VERIFIER,
            "backends/nash/isa/written.py": _VERIFIER,
        },
    }
)
"""Name of a group, then file, then the test files (or folders of them) that judge it."""
