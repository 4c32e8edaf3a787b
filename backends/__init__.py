"""What turns a quantised module into a binary, and what runs it. The names are those of the published workflow."""

from backends.api import Hbm, HbmFunction, compile, hbm_perf, link

__all__ = ["Hbm", "HbmFunction", "compile", "hbm_perf", "link"]
