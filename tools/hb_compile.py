"""hb_compile: from an ONNX model to a binary with its reports, in one command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tools.job import Job

__all__ = ["main"]

_EXAMPLES = """\b
Examples:
  hb_compile -c config.yaml
  hb_compile --fast-perf -m model.onnx --march nash-e
  hb_compile --fast-perf -m model.onnx --march nash-p --core-num 2 -i images 1x3x320x320
  hb_compile -m model.onnx --march nash-e             (is the model supported?)
  hb_compile -m model_quantized_model.bc --march nash-e

The configuration file has the sections model_parameters, input_parameters, calibration_parameters, compiler_parameters and
evaluation_parameters. The binary runs on this project's simulator, not on a board.
"""


def _job(
    config: Path | None,
    model: Path | None,
    march: str | None,
    shapes: tuple[tuple[str, str], ...],
    fast_perf: bool,
    core_num: int | None,
    skip: str | None,
    output: Path | None,
) -> Job:
    """The job that the options describe. Raises ConfigError."""
    from dataclasses import replace

    from hbir.errors import ConfigError
    from tools.console import read_file_kind
    from tools.job import MODEL_KINDS, Calibration, InputPlan, Job, parse_shape
    from tools.refusals import Refusal

    def conflict(what: str, lever: str) -> ConfigError:
        return ConfigError(Refusal.CONFLICT, what, lever=lever)

    if config is not None:
        from tools.config import load_config

        if fast_perf or core_num is not None:
            raise conflict(
                "--config excludes --fast-perf and --core-num", "set calibration_type: skip or core_num in the file"
            )
        if shapes or march:
            raise conflict("--config excludes --input-shape and --march", "set input_shape and march in the file")
        if model is not None and read_file_kind(model, MODEL_KINDS) == ".onnx":
            raise conflict(
                "--config takes the model from the file",
                "leave --model out, or give a module (.bc or .mlir) to compile again",
            )
        job = load_config(config, model=model)
        read_file_kind(job.model, MODEL_KINDS)
        return replace(job, folder=output or job.folder, skip=skip or "")
    if model is None:
        raise ConfigError(
            Refusal.MISSING, "neither a configuration nor a model is given", lever="see hb_compile --help"
        )
    kind = read_file_kind(model, MODEL_KINDS)
    if fast_perf and kind != ".onnx":
        raise conflict("--fast-perf takes an ONNX model", "leave it out for a module (.bc or .mlir)")
    checking = not fast_perf and kind == ".onnx"
    return Job(
        model=model,
        march=march or "",
        folder=output or Path(".hb_compile" if checking else "model_output"),
        prefix=model.stem.removesuffix("_quantized_model"),
        inputs=tuple(InputPlan(name, parse_shape(shape, f"input '{name}'")) for name, shape in shapes),
        calibration=Calibration(),
        opt=0 if checking else 2,
        core_num=1 if core_num is None else core_num,
        skip=skip or "",
    )


@click.command(epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option("-c", "--config", type=click.Path(path_type=Path), help="Configuration file (YAML).")
@click.option(
    "-m", "--model", type=click.Path(path_type=Path), help="Model: .onnx, or a module that this tool wrote (.bc)."
)
@click.option("--march", help="nash-e, nash-m, nash-p, nash-h, or the path of a march file (.toml).")
@click.option(
    "-i",
    "--input-shape",
    "shapes",
    nargs=2,
    multiple=True,
    metavar="NAME SHAPE",
    help="Shape of a dynamic input, such as x 1x3x224x224; repeatable.",
)
@click.option("--fast-perf", is_flag=True, help="Build for a performance estimate: no calibration, every range is one.")
@click.option("--core-num", type=int, help="Cores that share each frame (check and fast-perf mode).")
@click.option("--skip", type=click.Choice(["export", "convert", "compile"]), help="Stop before this stage.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Output folder; default: working_dir of the file, model_output, or .hb_compile when checking.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON in place of tables.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
def main(
    config: Path | None,
    model: Path | None,
    march: str | None,
    shapes: tuple[tuple[str, str], ...],
    fast_perf: bool,
    core_num: int | None,
    skip: str | None,
    output: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Compile a model for a march of the Nash family, run the binary on the simulator, and report."""
    from tools.compilation import run_job
    from tools.console import Log, command_errors, print_json
    from tools.summary import outcome_json, print_outcome

    log = Log(quiet=quiet)
    with command_errors(log):
        outcome = run_job(_job(config, model, march, shapes, fast_perf, core_num, skip, output), log)
        if as_json:
            print_json(outcome_json(outcome))
        else:
            print_outcome(outcome)


if __name__ == "__main__":
    main()
