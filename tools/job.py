"""What is to be compiled, as plain values: configuration files and command-line options both become a `Job`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hbir.errors import ConfigError
from tools.refusals import Refusal

__all__ = ["MODEL_KINDS", "Calibration", "Evaluation", "Image", "InputPlan", "Job", "parse_shape"]

MODEL_KINDS = (".onnx", ".bc", ".mlir")
"""Suffixes of the files that can be compiled: a network, or a module (`hbir.ir.files` imports too much for `--help`)."""


@dataclass(frozen=True, slots=True)
class Image:
    """How an image input is prepared inside the model: `(x - mean) * scale` by channel, in the order of the training type.

    `trained` and `fed` are `rgb`, `bgr` or `gray`; `layout` is `NCHW` or `NHWC`, that of the model's own input and of
    the calibration data.
    """

    trained: str
    fed: str
    layout: str
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class InputPlan:
    """What is known of one input: its name ("" for a model's only input), a shape for a dynamic one, its preparation."""

    name: str = ""
    shape: tuple[int, ...] | None = None
    image: Image | None = None


@dataclass(frozen=True, slots=True)
class Calibration:
    """Folders of samples in the order of the inputs, and how ranges are found; without folders every range is one."""

    folders: tuple[Path, ...] = ()
    observer: str = "default"
    percentile: float = 0.99995
    activation_bits: int = 8
    head_bits: int = 16
    asymmetric: bool = True


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Folders of samples in the order of the inputs, and a file with one class index a line."""

    folders: tuple[Path, ...]
    labels: Path | None = None


@dataclass(frozen=True)
class Job:
    """One run of hb_compile."""

    model: Path
    march: str
    folder: Path
    prefix: str = "model"
    inputs: tuple[InputPlan, ...] = ()
    calibration: Calibration = Calibration()
    evaluation: Evaluation | None = None
    opt: int = 2
    balance: int = 100
    core_num: int = 1
    max_l2m_size: int = 0
    debug: bool = True
    advice_us: float = 0.0
    skip: str = ""
    """Stop before this stage: `export`, `convert`, `compile`; "" runs all."""
    settings: Mapping[str, object] = field(default_factory=dict[str, object])
    """The configuration as given, for the log."""
    notes: tuple[str, ...] = ()
    """Warnings about the configuration."""


def parse_shape(text: str, where: str) -> tuple[int, ...]:
    """``1x3x224x224`` as numbers. Raises ConfigError HB0813."""
    # Ten digits hold every extent; Python refuses to read very long numbers.
    if not re.fullmatch(r"\d{1,10}(x\d{1,10})*", text.strip(), re.ASCII) or any(
        not 1 <= int(n) <= 1 << 31 for n in text.split("x")
    ):
        raise ConfigError(
            Refusal.VALUE,
            f"'{text[:60]}' is no shape",
            where=where,
            why="a shape is extents above zero with x between",
            lever="write 1x3x224x224",
        )
    return tuple(int(extent) for extent in text.split("x"))
