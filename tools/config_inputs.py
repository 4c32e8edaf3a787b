"""Section `input_parameters`: names, shapes, and what is done to images."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar, cast

from hbir.errors import ConfigError
from tools.config_schema import InputParameters
from tools.job import Image, InputPlan, parse_shape
from tools.refusals import Refusal

__all__ = ["input_plans"]

T = TypeVar("T")

_IMAGES = ("rgb", "bgr", "gray")
_YUV = ("nv12", "yuv444", "yuv444_128", "yuv_bt601_full", "yuv_bt601_video", "yuv420sp_bt601_video")


def _per_input(values: tuple[T, ...], count: int, key: str, path: Path, *, required: bool) -> tuple[T | None, ...]:
    if not values and not required:
        return (None,) * count
    if not values:
        raise ConfigError(
            Refusal.MISSING,
            f"'input_parameters.{key}' is missing",
            where=path.name,
            lever="add it, for example featuremap",
        )
    if len(values) != count:
        raise ConfigError(
            *(Refusal.INPUT_NAMES, f"'input_parameters.{key}' has {len(values)} entries for {count} inputs"),
            where=path.name,
            lever="give one for each input, separated by ;",
        )
    return values


def input_plans(section: InputParameters, path: Path) -> tuple[InputPlan, ...]:
    """One plan for each input, in the order of the section; `path` names the configuration file in errors.

    Raises ConfigError.
    """
    count = len(section.input_name) or max(len(section.input_type_rt), len(section.input_shape), 1)
    if len(set(section.input_name)) != len(section.input_name):
        raise ConfigError(
            Refusal.INPUT_NAMES,
            f"input_name names an input twice: {list(section.input_name)}",
            where=path.name,
            lever="name each once",
        )
    if count > 1 and not section.input_name:
        raise ConfigError(
            Refusal.MISSING,
            f"'input_parameters.input_name' is missing with {count} inputs",
            where=path.name,
            lever="name them, separated by ;",
        )

    def each(values: tuple[T, ...], key: str, *, required: bool = False) -> tuple[T | None, ...]:
        return _per_input(values, count, key, path, required=required)

    names = each(section.input_name, "input_name")
    runtime = each(section.input_type_rt, "input_type_rt", required=True)
    trained = each(section.input_type_train, "input_type_train", required=True)
    layouts = each(section.input_layout_train, "input_layout_train")
    shapes = each(section.input_shape, "input_shape")
    means = each(section.mean_value, "mean_value")
    scales = each(section.scale_value, "scale_value")
    deviations = each(section.std_value, "std_value")
    plans: list[InputPlan] = []
    for at in range(count):
        where = f"{path.name}, input {names[at] or at}"
        numbers = (means[at] or (), scales[at] or (), deviations[at] or ())
        image = _image(cast(str, runtime[at]), cast(str, trained[at]), layouts[at] or "", numbers, where)
        shape = shapes[at]
        plans.append(InputPlan(names[at] or "", parse_shape(shape, where) if shape else None, image))
    return tuple(plans)


def _image(fed: str, trained: str, layout: str, numbers: tuple[tuple[float, ...], ...], where: str) -> Image | None:
    """None for a feature map."""
    for value in (fed, trained):
        if value in _YUV:
            raise ConfigError(
                *(Refusal.UNSUPPORTED, f"input type '{value}' is not supported"),
                where=where,
                lever="use rgb, bgr, gray or featuremap, and convert the picture before it is fed",
            )
        if value not in (*_IMAGES, "featuremap"):
            raise ConfigError(
                Refusal.VALUE,
                f"input type '{value}' does not exist",
                where=where,
                lever="use rgb, bgr, gray or featuremap",
            )
    mean, scale, deviation = numbers
    if "featuremap" in (fed, trained):
        if fed != trained:
            raise ConfigError(
                Refusal.CONFLICT,
                f"input_type_rt is '{fed}', input_type_train '{trained}'",
                where=where,
                lever="make both featuremap, or both images",
            )
        if any(numbers):
            raise ConfigError(
                *(Refusal.CONFLICT, "mean_value, scale_value and std_value are for images"),
                where=where,
                why="a featuremap is fed as the model takes it",
                lever="remove them and prepare the data outside, or make the input rgb, bgr or gray",
            )
        return None
    if (fed == "gray") != (trained == "gray"):
        raise ConfigError(
            Refusal.CONFLICT,
            f"'{fed}' cannot become '{trained}'",
            where=where,
            lever="make both gray, or both rgb or bgr",
        )
    if layout not in ("NCHW", "NHWC"):
        raise ConfigError(
            Refusal.MISSING if not layout else Refusal.VALUE,
            f"input_layout_train is '{layout}'" if layout else "input_layout_train is missing",
            where=where,
            lever="write NCHW or NHWC",
        )
    if scale and deviation:
        raise ConfigError(
            Refusal.CONFLICT, "scale_value and std_value exclude each other", where=where, lever="keep one of them"
        )
    if 0 in deviation or 0 in scale:
        raise ConfigError(Refusal.VALUE, "a scale or deviation of 0", where=where, lever="use values other than 0")
    return Image(trained, fed, layout, mean, scale or tuple(1 / value for value in deviation))
