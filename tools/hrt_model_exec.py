"""hrt_model_exec: looks into a binary, runs it on the simulator, or times it, with the options of the published tool."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

if TYPE_CHECKING:
    from backends import HbmFunction
    from backends.nash.hbm import Tensor
    from tools.throughput import Throughput

__all__ = ["main"]

_EXAMPLES = """\b
Examples:
  hrt_model_exec model_info --model_file model.hbm
  hrt_model_exec infer --model_file model.hbm --input_file a.npy,b.npy --output_dir results
  hrt_model_exec perf --model_file model.hbm --thread_num 2 --frame_count 200

Everything runs on this project's simulator: times are of the simulated device, not of a board.
"""

F = TypeVar("F", bound=Callable[..., Any])


def _model_options(command: F) -> F:
    command = click.option("--json", "as_json", is_flag=True, help="JSON in place of text.")(command)
    command = click.option("--model_name", help="Which model of the file; needed when it holds several.")(command)
    return click.option("--model_file", type=click.Path(path_type=Path), help="The binary (.hbm).")(command)


def _function(model_file: Path | None, model_name: str | None) -> HbmFunction:
    """The model that the options name. Raises ConfigError HB0814, HB0817, HB0821, HB0822 and what reading raises."""
    from backends import Hbm
    from hbir.errors import ConfigError
    from tools.console import read_file_kind
    from tools.refusals import Refusal

    if model_file is None:
        raise ConfigError(Refusal.MISSING, "--model_file is missing", lever="add --model_file model.hbm")
    read_file_kind(model_file, (".hbm",))
    functions = Hbm(model_file).functions
    names = [function.name for function in functions]
    if model_name is None and len(functions) == 1:
        return functions[0]
    if model_name not in names:
        what = "--model_name is missing" if model_name is None else f"there is no model '{model_name}'"
        raise ConfigError(Refusal.FUNCTION, what, where=model_file.name, lever=f"choose one of {', '.join(names)}")
    return functions[names.index(model_name)]


@click.group(epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
def main() -> None:
    """Inspect, run and time a compiled model on the simulator."""


_TENSOR_TYPES = {
    "int8": "S8", "uint8": "U8", "int16": "S16", "uint16": "U16", "int32": "S32", "int64": "S64",
    "float16": "F16", "float32": "F32", "float64": "F64", "bool": "BOOL8",
}  # fmt: skip


def _properties(tensor: Tensor) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": tensor.name,
        "valid shape": list(tensor.shape),
        "stride": list(tensor.strides),
        "aligned byte size": tensor.view.end - tensor.view.address,
        "tensor type": f"HB_DNN_TENSOR_TYPE_{_TENSOR_TYPES[tensor.dtype]}",
        "quanti type": "NONE" if tensor.quantization is None else "SCALE",
    }
    if tensor.quantization is not None:
        q = tensor.quantization
        found |= {
            "scale data": list(q.scales),
            "zero point": list(q.zero_points),
            "quantizeAxis": 0 if q.axis is None else q.axis,
        }
    return found


@main.command("model_info")
@_model_options
def model_info(model_file: Path | None, model_name: str | None, as_json: bool) -> None:
    """Shapes, strides, types and scales of inputs and outputs."""
    from tools.console import command_errors, print_json, print_lines

    with command_errors():
        function = _function(model_file, model_name)
        sides = {
            "input": [_properties(t) for t in function.flatten_inputs],
            "output": [_properties(t) for t in function.flatten_outputs],
        }
        if as_json:
            print_json({"model name": function.name, **sides})
            return
        print_lines(f"[model name]: {function.name}", f"[march]: {function.model.march.name}")
        for side, tensors in sides.items():
            for index, properties in enumerate(tensors):
                print_lines("", f"{side}[{index}]:")
                for key, value in properties.items():
                    shown = f"({','.join(map(str, cast(list[object], value)))})" if isinstance(value, list) else value
                    print_lines(f"{key}: {shown}")


def _read_inputs(function: HbmFunction, text: str) -> dict[str, Any]:
    import numpy as np

    from hbir.errors import ConfigError
    from tools.refusals import Refusal

    paths = [Path(part.strip()) for part in text.split(",") if part.strip()]
    wanted = function.flatten_inputs
    if len(paths) != len(wanted):
        raise ConfigError(
            Refusal.INPUT_NAMES, f"{len(paths)} input files for {len(wanted)} inputs",
            lever=f"give --input_file with one .npy file for each of {', '.join(t.name for t in wanted)}, separated by commas",
        )  # fmt: skip
    feeds: dict[str, Any] = {}
    for tensor, path in zip(wanted, paths, strict=True):
        try:
            feeds[tensor.name] = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError, SyntaxError) as error:
            why = " ".join(str(error).split())
            raise ConfigError(
                Refusal.FILE, f"{path} is not an .npy file", why=why, lever="save the array with numpy.save"
            ) from None
    return feeds


def _file_name(index: int, name: str) -> str:
    kept = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
    return f"output_{index}_{kept}.npy"


@main.command("infer")
@_model_options
@click.option("--input_file", default="", help="One .npy file for each input, separated by commas.")
@click.option(
    "-o", "--output_dir", type=click.Path(path_type=Path), default=Path(), help="Where the outputs go. [default: here]"
)
def infer(model_file: Path | None, model_name: str | None, as_json: bool, input_file: str, output_dir: Path) -> None:
    """Run one frame; each output becomes an .npy file."""
    from tools.console import command_errors, print_json, print_table

    with command_errors():
        import numpy as np

        from hbir.ir.files import replacing

        function = _function(model_file, model_name)
        outputs = function.feed(_read_inputs(function, input_file))
        rows: list[dict[str, Any]] = []
        for index, (name, array) in enumerate(outputs.items()):
            path = output_dir / _file_name(index, name)
            with replacing(path) as file:
                np.save(file, array, allow_pickle=False)
            extremes = {"min": float(array.min()), "max": float(array.max())}
            rows.append(
                {"output": name, "shape": list(array.shape), "type": str(array.dtype), **extremes, "file": str(path)}
            )
        if as_json:
            print_json(rows)
            return
        cells = [
            (r["output"], "x".join(map(str, r["shape"])), r["type"], f"{r['min']:.6g}", f"{r['max']:.6g}", r["file"])
            for r in rows
        ]
        print_table(f"Outputs of {function.name}", ("output", "shape", "type", "#min", "#max", "file"), cells)


def _perf_lines(result: Throughput) -> list[str]:
    total, mean = 1e3 * result.total_latency_seconds, 1e3 * result.average_latency_seconds
    return [
        ", ".join(
            (
                f"Frame count: {result.frames}",
                f"Thread Average: {mean:.6f} ms",
                f"thread max latency: {1e3 * result.longest_seconds:.6f} ms",
                f"thread min latency: {1e3 * result.shortest_seconds:.6f} ms",
                f"FPS: {result.frames_per_second:.6f}",
            )
        ),
        "",
        "Running condition:",
        f"  Thread number is: {result.threads}",
        f"  Frame count   is: {result.frames}",
        f"  Program run time: {1e3 * result.run_seconds:.6f} ms",
        "Perf result:",
        f"  Frame totally latency is: {total:.6f} ms",
        f"  Average    latency    is: {mean:.6f} ms",
        f"  Frame      rate       is: {result.frames_per_second:.6f} FPS",
    ]


def _perf_json(function: HbmFunction, core_id: str, result: Throughput, wall: float) -> dict[str, Any]:
    return {
        "perf_result": {"FPS": result.frames_per_second, "average_latency": 1e3 * result.average_latency_seconds},
        "running_condition": {
            "core_id": core_id,
            "frame_count": result.frames,
            "model_name": function.name,
            "run_time": 1e3 * result.run_seconds,
            "thread_num": result.threads,
        },
        "device_latency": 1e3 * result.device_seconds,
        "dispatch_overhead": 1e3 * result.dispatch_seconds,
        "simulator_wall_time": 1e3 * wall,
    }


@main.command("perf")
@_model_options
@click.option("--core_id", default="0", show_default=True, help="0: any core; 1,2: these cores.")
@click.option(
    "--thread_num", type=click.IntRange(1, 32), default=1, show_default=True, help="Threads that submit frames."
)
@click.option(
    "--frame_count", type=click.IntRange(1, 10_000_000), default=200, show_default=True, help="Frames in all."
)
@click.option(
    "--profile_path", type=click.Path(path_type=Path), help="Also write profiler.log and profiler.csv into this folder."
)
def perf(
    model_file: Path | None, model_name: str | None, as_json: bool, core_id: str, thread_num: int, frame_count: int,
    profile_path: Path | None,
) -> None:  # fmt: skip
    """Latency and frame rate of the simulated device; all times in milliseconds."""
    from tools.console import command_errors, print_json, print_lines

    with command_errors():
        from tools.throughput import parse_cores, throughput, wall_seconds, write_profile

        function = _function(model_file, model_name)
        result = throughput(function.model, parse_cores(core_id, function.model), thread_num, frame_count)
        wall = wall_seconds(function)
        values = _perf_json(function, core_id, result, wall)
        if profile_path is not None:
            write_profile(profile_path, function.model, values, result)
        if as_json:
            print_json(values)
            return
        print_lines(*_perf_lines(result))
        cores = result.groups * function.model.memories.cores
        print_lines(
            "",
            f"Simulated device: {1e3 * result.device_seconds:.6f} ms a frame alone, {result.groups} at a time on {cores} of"
            f" {function.model.march.cores} cores, {1e3 * result.dispatch_seconds:.3f} ms dispatch overhead",
            f"This computer: {1e3 * wall:.3f} ms of wall time a frame in the functional simulator",
        )


if __name__ == "__main__":
    main()
