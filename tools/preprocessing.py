"""Image inputs: the module takes pixels, and what the user said about mean, scale and channel order happens inside it.

The new input is float32 with values 0 to 255: NHWC for rgb and bgr, NCHW for gray. Pixels are whole numbers, so that their grid
(scale 1, zero point -128) loses nothing. Mean, scale and channel order are one 1x1 convolution with a scale for each channel.
"""

from __future__ import annotations

import numpy as np
from xdsl.dialects.builtin import f32
from xdsl.ir import Operation, SSAValue

from hbir.dialects.base import HbOperation, tensor
from hbir.dialects.hbir import Conv2dOp, TransposeOp, constant
from hbir.dialects.qat import FakeQuantOp
from hbir.dialects.quant import UniformQuantizedType
from hbir.errors import ConfigError
from hbir.ir.locations import name_location
from hbir.module import Argument, Module
from tools.job import Image
from tools.refusals import Refusal

__all__ = ["insert_image_input"]

PIXELS = UniformQuantizedType.get(8, 1.0, -128)


def _channels(argument: Argument, image: Image) -> tuple[int, int, int, int]:
    """N, H, W, C of the model's own input. Raises ConfigError HB0819 when it is no image of that kind."""
    shape, wanted = argument.type.shape, 1 if image.trained == "gray" else 3
    ordered = tuple(shape[axis] for axis in (0, 2, 3, 1)) if len(shape) == 4 and image.layout == "NCHW" else shape
    if len(ordered) != 4 or ordered[3] != wanted or argument.type.np_dtype != np.float32:
        raise ConfigError(
            Refusal.INPUT_KIND,
            f"{argument.type} is no {image.trained} image",
            where=f"input '{argument.name}'",
            why=f"an image in {image.layout} has four axes, {wanted} channel{'s' * (wanted > 1)} and float elements",
            lever="make the input a featuremap, or mend input_layout_train",
        )
    return ordered  # pyright: ignore[reportReturnType]


def _values(given: tuple[float, ...], channels: int, default: float, what: str, name: str) -> list[float]:
    if len(given) not in (0, 1, channels):
        raise ConfigError(
            *(Refusal.VALUE, f"{what} has {len(given)} values for {channels} channels"), where=f"input '{name}'",
            lever=f"give 1 or {channels}",
        )  # fmt: skip
    return [default] * channels if not given else list(given) * (channels if len(given) == 1 else 1)


def insert_image_input(module: Module, name: str, image: Image) -> None:
    """Make input `name` of the module's function take pixels, in place. Raises ConfigError HB0813, HB0819."""
    function = module[0]
    argument = next(a for a in function.flatten_inputs if a.name == name)
    batch, height, width, channels = _channels(argument, image)
    mean = _values(image.mean, channels, 0.0, "mean_value", name)
    scale = _values(image.scale, channels, 1.0, "scale_value", name)
    block, old, location = function.op.body.block, argument.value, name_location(name)
    gray = image.fed == "gray"
    shape = (batch, channels, height, width) if gray else (batch, height, width, channels)
    pixels = block.insert_arg(tensor(shape, f32), argument.index)
    pixels.location = location
    made: list[Operation] = []

    def put(op: HbOperation) -> SSAValue:
        op.location = location
        made.append(op)
        return op.results[0]

    value: SSAValue = put(FakeQuantOp.make(pixels, grid=PIXELS))
    if gray:
        value = put(TransposeOp.make(value, permutation=(0, 2, 3, 1)))
    if any(mean) or any(s != 1 for s in scale) or image.fed != image.trained:
        # Output channel c, in the model's order, reads input channel `source`.
        weight = np.zeros((channels, 1, 1, channels), np.float32)
        for c in range(channels):
            source = channels - 1 - c if image.fed != image.trained else c
            weight[c, 0, 0, source] = scale[c]
        bias = -np.array(mean, np.float32) * np.array(scale, np.float32)
        operands = [constant(array, module.constants, f32, location) for array in (weight, bias)]
        made.extend(operands)
        value = put(_pointwise(value, *(op.output for op in operands)))
    if image.layout == "NCHW":
        value = put(TransposeOp.make(value, permutation=(0, 3, 1, 2)))
    block.insert_ops_before(made, block.first_op) if block.first_op is not None else None
    old.replace_all_uses_with(value)
    block.erase_arg(block.args[argument.index + 1])
    function.update_type()
    module.verify()


def _pointwise(x: SSAValue, weight: SSAValue, bias: SSAValue) -> HbOperation:
    return Conv2dOp.make(x, weight, bias, None, stride=(1, 1), pad=(0, 0, 0, 0), dilation=(1, 1), groups=1)
