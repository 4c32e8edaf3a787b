"""hb_model_info: what a model file takes, gives and needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from backends.nash.hbm import Model

__all__ = ["describe", "main"]

_EXAMPLES = """\b
Examples:
  hb_model_info model.hbm
  hb_model_info -v model_quantized_model.bc
  hb_model_info --json model.onnx
"""


def _tensor_row(name: str, side: str, shape: Sequence[object], dtype: str, scale: str = "") -> dict[str, Any]:
    return {"name": name, "type": side, "shape": list(shape), "data type": dtype, "scale": scale}


def _scale_text(scales: Sequence[float], zeros: Sequence[int]) -> str:
    if len(scales) == 1:
        return f"{scales[0]:.9g}" + (f", zero point {zeros[0]}" if zeros[0] else "")
    return f"{len(scales)} scales, {min(scales):.3g} to {max(scales):.3g}"


def _hbm(path: Path, name: str | None) -> list[dict[str, Any]]:
    from backends import Hbm

    binary = Hbm(path)
    chosen = binary.models if name is None else (binary[name].model,)
    return [_hbm_model(model, path) for model in chosen]


def _hbm_model(model: Model, path: Path) -> dict[str, Any]:
    from backends.nash.perf import report

    tensors = [
        _tensor_row(
            *(t.name, side, t.shape, t.dtype),
            "" if t.quantization is None else _scale_text(t.quantization.scales, t.quantization.zero_points),
        )
        for side, group in (("input", model.inputs), ("output", model.outputs))
        for t in group
    ]
    memory = report(model, file_bytes=path.stat().st_size).memory
    return {
        "model": model.name,
        "tensors": tensors,
        "facts": {
            "march": model.march.name,
            "cores": model.memories.cores,
            "compiler": model.tool_version,
            "description": model.description,
            **{f"option {key}": value for key, value in sorted(model.options.items())},
        },
        "memory": {
            "input memory": memory.input,
            "output memory": memory.output,
            "intermediate memory": memory.intermediate,
            "temporary memory": memory.temporary,
            "dynamic memory": memory.dynamic,
            "static memory": memory.static,
            "min memory requirement": memory.minimum,
            "L1M per core": memory.l1m,
            "L2M": memory.l2m,
        },
        "operations": dict(Counter(d.opcode.name for d in model.program.decoded).most_common()),
        "placements": [dict(row) for row in model.placements],
    }


def _module(path: Path, name: str | None) -> list[dict[str, Any]]:
    from hbir.module import load

    module = load(path)
    found: list[dict[str, Any]] = []
    for function in module if name is None else [module[name]]:
        sides = (("input", function.flatten_inputs), ("output", function.flatten_outputs))
        rows: list[dict[str, Any]] = []
        for side, arguments in sides:
            for a in arguments:
                grid = a.type.quant_info
                scale = "" if grid is None else _scale_text(grid.scale_array.tolist(), grid.zero_point_array.tolist())
                rows.append(_tensor_row(a.name, side, a.type.shape, str(a.type.np_dtype), scale))
        facts = {"march": module.march or "none yet", "operations": len(function.operations)}
        found.append(
            {"model": function.name, "tensors": rows, "facts": facts, "operations": dict(function.statistics())}
        )
    return found


def _onnx(path: Path, name: str | None) -> list[dict[str, Any]]:
    from hbir.frontends.onnx.reader import read_model
    from hbir.frontends.onnx.tensors import type_name

    model = read_model(path)
    graph = model.graph
    held = {tensor.name for tensor in graph.initializer}

    def row(value: Any, side: str) -> dict[str, Any]:
        tensor = value.type.tensor_type
        shape = [d.dim_value or d.dim_param or "?" for d in tensor.shape.dim]
        return _tensor_row(value.name, side, shape, type_name(tensor.elem_type))

    rows = [row(v, "input") for v in graph.input if v.name not in held] + [row(v, "output") for v in graph.output]
    facts = {
        "IR version": model.ir_version,
        **{f"opset {domain or 'ai.onnx'}": version for domain, version in model.opsets.items()},
        "nodes": len(graph.node),
        "initializers": len(graph.initializer),
    }
    operations = dict(Counter(node.op_type for node in graph.node).most_common())
    return [{"model": name or graph.name, "tensors": rows, "facts": facts, "operations": operations}]


_READERS = {".bc": _module, ".hbm": _hbm, ".mlir": _module, ".onnx": _onnx}


def describe(path: Path, name: str | None = None) -> list[dict[str, Any]]:
    """The models of a file as plain values. Raises HbError for a file that is damaged or of another kind."""
    from tools.console import read_file_kind

    return _READERS[read_file_kind(path, tuple(_READERS))](path, name)


def _print(model: Mapping[str, Any], verbose: bool) -> None:
    from tools.console import print_table

    columns = ("NAME", "TYPE", "SHAPE", "DATA_TYPE", "SCALE")
    cells = [
        (t["name"], t["type"], "x".join(map(str, t["shape"])), t["data type"], t["scale"]) for t in model["tensors"]
    ]
    print_table(f"Model {model['model']}", columns, cells)
    print_table("", ("property", "value"), [(k, v) for k, v in model["facts"].items() if v != ""])
    if "memory" in model:
        print_table("Memory", ("use", "#bytes"), [(k, f"{v:,}") for k, v in model["memory"].items()])
    if verbose:
        print_table("Operations", ("operation", "#count"), list(model["operations"].items()))
        if placements := model.get("placements"):
            keys = ("layer", "op", "unit", "tiles", "macs", "reason")
            numeric = ("tiles", "macs")
            print_table(
                "Placement",
                [f"#{k}" if k in numeric else k for k in keys],
                [[row.get(k) for k in keys] for row in placements],
            )


@click.command(epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("-n", "--name", help="Only the model of this name.")
@click.option("-v", "--verbose", is_flag=True, help="Also operations, and the placement of layers.")
@click.option("--json", "as_json", is_flag=True, help="JSON in place of tables.")
def main(file: Path | None, name: str | None, verbose: bool, as_json: bool) -> None:
    """Show inputs, outputs, versions, options and memory of FILE (.hbm, .bc, .mlir or .onnx)."""
    from tools.console import command_errors, print_json

    with command_errors():
        from hbir.errors import ConfigError
        from tools.refusals import Refusal

        if file is None:
            raise ConfigError(Refusal.MISSING, "no file is given", lever="see hb_model_info --help")
        models = describe(file, name)
        if as_json:
            print_json(models)
            return
        for model in models:
            _print(model, verbose)


if __name__ == "__main__":
    main()
