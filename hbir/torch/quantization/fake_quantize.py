"""Published names: fake quants and their states."""

from __future__ import annotations

from hbir.torch.fake_quant.adaround import weight_reconstruction
from hbir.torch.fake_quant.fake_quantize import FakeQuantize, FakeQuantState, set_fake_quantize
from hbir.torch.fake_quant.notices import TrainingWarning

__all__ = ["FakeQuantState", "FakeQuantize", "TrainingWarning", "set_fake_quantize", "weight_reconstruction"]
