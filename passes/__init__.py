"""What changes a module. One pass is one file; `Pipeline` runs them; `calibrate` and `convert` are the stock roads."""

from passes.calibrate import calibrate
from passes.convert import convert
from passes.manager import Pass, Pipeline, Promise, available_passes, load_pass

__all__ = ["Pass", "Pipeline", "Promise", "available_passes", "calibrate", "convert", "load_pass"]
