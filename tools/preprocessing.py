"""Image inputs: what the configuration says about mean, scale and channel order, checked and put into the module.

The new input is float32 with values 0 to 255: NHWC for rgb and bgr, NCHW for gray.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from hbir.boundary import insert_image_scale
from hbir.errors import ConfigError
from hbir.module import Argument, Module
from tools.job import Image
from tools.refusals import Refusal

__all__ = ["insert_image_input"]

Doubles: TypeAlias = npt.NDArray[np.float64]


def _channels(argument: Argument, image: Image) -> int:
    """How many channels the model's own input has. Raises ConfigError HB0819 when it is no image of that kind."""
    shape, wanted = argument.type.shape, 1 if image.trained == "gray" else 3
    axis = 1 if image.layout == "NCHW" else 3
    if len(shape) != 4 or shape[axis] != wanted or argument.type.np_dtype != np.float32:
        raise ConfigError(
            Refusal.INPUT_KIND,
            f"{argument.type} is no {image.trained} image",
            where=f"input '{argument.name}'",
            why=f"an image in {image.layout} has four axes, {wanted} channel{'s' * (wanted > 1)} and float elements",
            lever="make the input a featuremap, or mend input_layout_train",
        )
    return wanted


def _values(given: tuple[float, ...], channels: int, default: float, what: str, name: str) -> Doubles:
    if len(given) not in (0, 1, channels):
        raise ConfigError(
            *(Refusal.VALUE, f"{what} has {len(given)} values for {channels} channels"), where=f"input '{name}'",
            lever=f"give 1 or {channels}",
        )  # fmt: skip
    return np.broadcast_to(np.array(given or default, np.float64), (channels,))


def insert_image_input(module: Module, name: str, image: Image) -> None:
    """Make input `name` of the module's function take pixels, in place. Raises ConfigError HB0813, HB0819."""
    argument = next(a for a in module[0].flatten_inputs if a.name == name)
    channels = _channels(argument, image)
    mean = _values(image.mean, channels, 0.0, "mean_value", name)
    scale = _values(image.scale, channels, 1.0, "scale_value", name)
    if image.layout == "NCHW":
        argument.insert_transpose((0, 3, 1, 2))
    insert_image_scale(argument, scale, -mean * scale, reverse_channels=image.fed != image.trained)
    if image.fed == "gray":
        argument.insert_transpose((0, 2, 3, 1))
    module.verify()
