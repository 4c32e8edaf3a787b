"""QDQ models as users bring them: the test networks quantised by onnxruntime's own `quantize_static`, in the variants
that an importer must understand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import version_converter
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from tests.archives import cache_folder, write_atomically
from tests.networks import calibration_feeds, network

__all__ = ["VARIANTS", "Variant", "quantized_network"]

# DequantizeLinear has an axis from here on; the quantizer writes it into older files too, which no runtime then loads.
PER_CHANNEL_OPSET = 13

Feed = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Variant:
    """One setting of onnxruntime's static quantizer. `options` are its `extra_options`."""

    activations: QuantType
    weights: QuantType
    per_channel: bool = False
    options: dict[str, bool] = field(default_factory=dict[str, bool])


VARIANTS: dict[str, Variant] = {
    # int8 with zero points, the quantizer's default for int8: Relu and Clip vanish into the range.
    "int8": Variant(QuantType.QInt8, QuantType.QInt8),
    # int8 with all zero points 0: Relu and Clip stay.
    "int8_symmetric": Variant(QuantType.QInt8, QuantType.QInt8, options={"ActivationSymmetric": True}),
    "uint8": Variant(QuantType.QUInt8, QuantType.QInt8),
    # Weights with a zero point too.
    "uint8_weights": Variant(QuantType.QUInt8, QuantType.QUInt8),
    "per_channel": Variant(QuantType.QUInt8, QuantType.QInt8, per_channel=True),
    # The quantizer raises the opset to 21 for 16 bits.
    "int16": Variant(QuantType.QInt16, QuantType.QInt8),
    "int16_symmetric": Variant(
        QuantType.QInt16, QuantType.QInt8, per_channel=True, options={"ActivationSymmetric": True}
    ),
    # QuantizeLinear and DequantizeLinear of the domain com.microsoft.
    "int16_contrib": Variant(QuantType.QInt16, QuantType.QInt8, options={"UseQDQContribOps": True}),
}


class _Reader(CalibrationDataReader):
    """onnxruntime's calibration interface over a list of feeds."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self.feeds: Iterator[Feed] = iter(feeds)

    def get_next(self) -> Any:
        return next(self.feeds, None)


@cache
def quantized_network(name: str, variant: str, *, calibration: int = 20) -> Path:
    """The network `name` of `tests.networks.NETWORKS`, quantised as `VARIANTS[variant]` says, with min-max calibration
    on `calibration` of its inputs. Cached by source model, inputs, setting, onnxruntime's version and this file."""
    setting, source, feeds = VARIANTS[variant], network(name), calibration_feeds(name, calibration)
    key = hashlib.sha256(f"{setting} {onnxruntime.__version__}".encode())
    key.update(Path(__file__).read_bytes())
    key.update(source.read_bytes())
    for feed in feeds:
        for array in feed.values():
            key.update(array.tobytes())
    path = cache_folder() / "built" / f"{name}-{variant}-{key.hexdigest()[:12]}.onnx"

    def write(partial: Path) -> None:
        model = onnx.load(source)
        if setting.per_channel and model.opset_import[0].version < PER_CHANNEL_OPSET:
            model = version_converter.convert_version(model, PER_CHANNEL_OPSET)
        quantize_static(
            model,
            partial,
            _Reader(feeds),
            quant_format=QuantFormat.QDQ,
            activation_type=setting.activations,
            weight_type=setting.weights,
            per_channel=setting.per_channel,
            extra_options=dict(setting.options),
        )

    return path if path.exists() else write_atomically(path, write)
