"""hbir-view: a module for Netron or Model Explorer, with cycles, bytes and error by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tools.modules import input_shapes

if TYPE_CHECKING:
    from hbir.module import Module
    from tools.console import Log

__all__ = ["main"]

_EXAMPLES = """\b
Examples:
  hbir-view model_quantized_model.bc --netron
  hbir-view model_quantized_model.bc -o model_view.onnx
  hbir-view model_quantized_model.bc -o model_view.json --hbm model.hbm
  hbir-view model_quantized_model.bc -o model_view.json --against model.onnx --feeds sample.npz
  hbir-view model_quantized_model.bc -o model_view.json --overlay time_us=perf/model.json
\b
Then, for Model Explorer (pip install ai-edge-model-explorer):
  model-explorer model_view.json --node_data_paths model_view.cycles.json,model_view.bytes.json
"""


@dataclass(frozen=True)
class _Wanted:
    """Where overlays come from."""

    files: tuple[tuple[str, Path], ...]
    hbm: Path | None
    against: Path | None
    feeds: Path | None
    shapes: tuple[tuple[str, str], ...]

    def __bool__(self) -> bool:
        return bool(self.files or self.hbm or self.against)


def _named_files(given: tuple[str, ...]) -> tuple[tuple[str, Path], ...]:
    from hbir.errors import ConfigError
    from tools.refusals import Refusal

    for text in given:
        name, _, path = text.partition("=")
        if not name or not path:
            raise ConfigError(Refusal.VALUE, f"'{text}' names no overlay", lever="write NAME=FILE")
    return tuple((name, Path(path)) for name, _, path in (text.partition("=") for text in given))


def _output(source: Path, given: Path | None, wanted: _Wanted, netron: bool) -> Path:
    """The file to write: as asked, or beside the module's name in the working folder."""
    from hbir.errors import ConfigError
    from tools.refusals import Refusal

    path = given or Path(f"{source.stem}_view{'.json' if wanted and not netron else '.onnx'}")
    if path.suffix not in (".onnx", ".json"):
        lever = "choose a name that ends in .onnx (Netron) or .json (Model Explorer)"
        raise ConfigError(Refusal.FILE_KIND, f"{path.name} is neither", lever=lever)
    if path.resolve() == source.resolve():
        raise ConfigError(Refusal.CONFLICT, f"{path} is the module itself", lever="choose another name with -o")
    if path.suffix == ".onnx" and wanted:
        lever = "choose a name that ends in .json, without --netron"
        raise ConfigError(Refusal.CONFLICT, "Netron shows no overlays", lever=lever)
    if path.suffix == ".json" and netron:
        raise ConfigError(Refusal.CONFLICT, "Netron opens .onnx files", lever="choose a name that ends in .onnx")
    if (wanted.against is None) != (wanted.feeds is None):
        lever = "give --against FLOAT together with --feeds FILE.npz"
        raise ConfigError(Refusal.MISSING, "an error needs a float network and a sample", lever=lever)
    return path


def _overlays(module: Module, wanted: _Wanted, log: Log) -> dict[str, dict[str, float]]:
    from hbir.errors import ConfigError
    from hbir.feeds import read_feed
    from tools.modules import load_module
    from tools.overlays import check_layers, error_overlay, hbm_overlays, read_overlay
    from tools.refusals import Refusal

    found: dict[str, dict[str, float]] = {}

    def add(name: str, values: dict[str, float]) -> None:
        if name in found:
            raise ConfigError(Refusal.CONFLICT, f"overlay '{name}' is given twice", lever="leave one out")
        check_layers(module, name, values)
        found[name] = values

    if wanted.hbm is not None:
        with log.stage("estimate", "estimate the performance"):
            for name, values in hbm_overlays(wanted.hbm).items():
                add(name, values)
    for name, path in wanted.files:
        add(name, read_overlay(name, path))
    if wanted.against is not None and wanted.feeds is not None:
        feed = read_feed(wanted.feeds)
        with log.stage("compare", "run both networks"):
            add("error", error_overlay(module, load_module(wanted.against, wanted.shapes), feed))
    return found


def _shown(module: Module, overlays: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """For each overlay the layers that have a value here, and the largest one."""
    from hbir.ir.locations import layer_name

    layers = {layer_name(op) for function in module for op in function.operations}
    rows: list[dict[str, Any]] = []
    for name, values in overlays.items():
        here = {layer: value for layer, value in values.items() if layer in layers}
        worst = max(here, key=lambda layer: here[layer], default="")
        missing = len(values) - len(here)
        rows.append(
            {
                "overlay": name,
                "layers": len(here),
                "not in the module": missing,
                "largest": here.get(worst),
                "at": worst,
            }
        )
    return rows


@click.command(epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.argument("module", required=False, type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="NAME.onnx for Netron, NAME.json for Model Explorer."
)
@click.option("--overlay", "files", multiple=True, metavar="NAME=FILE",
    help="Values by layer: a column (cycles, bytes, time_us, macs, …) of hbm_perf's JSON, or a JSON object {layer: number}.",
)  # fmt: skip
@click.option("--hbm", type=click.Path(path_type=Path), help="The compiled binary: estimated cycles, and bytes of DDR.")
@click.option("--against", metavar="FLOAT", type=click.Path(path_type=Path),
    help="The float network: the error of each layer, 1 - cosine, on the sample in --feeds.",
)  # fmt: skip
@click.option("--feeds", metavar="NPZ", type=click.Path(path_type=Path), help="One sample: an array for each input.")
@click.option("--netron", is_flag=True, help="Write .onnx and open it in Netron, until Ctrl-C.")
@click.option("--host", help="Where Netron serves; localhost when it is left out.")
@click.option("--port", type=click.IntRange(1, 65535), help="The port it serves on; a free one when it is left out.")
@click.option("--external-data", is_flag=True, help="Constants in a file beside the .onnx.")
@click.option("--json", "as_json", is_flag=True, help="The summary as JSON in place of a table.")
@input_shapes
def main(
    module: Path | None, output: Path | None, files: tuple[str, ...], hbm: Path | None, against: Path | None,
    feeds: Path | None, netron: bool, host: str | None, port: int | None, external_data: bool, as_json: bool,
    shapes: tuple[tuple[str, str], ...],
) -> None:  # fmt: skip
    """Write MODULE (.bc, .mlir or .onnx) as a graph to look at: ONNX for Netron, or JSON for Model Explorer, there with
    cycles, bytes and error of each layer as colours. Each overlay is a file beside the graph, NAME.OVERLAY.json.
    """
    from tools.console import Log, command_errors, print_json, print_table

    log = Log()
    with command_errors(log):
        from hbir.errors import ConfigError
        from tools.refusals import Refusal

        if module is None:
            raise ConfigError(Refusal.MISSING, "no module is given", lever="see hbir-view --help")
        wanted = _Wanted(_named_files(files), hbm, against, feeds, shapes)
        path = _output(module, output, wanted, netron)
        if external_data and path.suffix == ".json":
            raise ConfigError(Refusal.CONFLICT, "a graph in JSON holds no constants", lever="leave out --external-data")
        from tools.modules import load_module

        loaded = load_module(module, shapes)
        overlays = _overlays(loaded, wanted, log)
        written = _write(loaded, path, overlays, use_netron=netron, host=host, port=port, external=external_data)
        rows = _shown(loaded, overlays)
        if as_json:
            print_json({"files": [str(each) for each in written], "overlays": rows})
        else:
            print_table("", ("file",), [[each] for each in written])
            if rows:
                print_table(
                    "Overlays", ("overlay", "#layers", "#not in the module", "#largest", "at"), map(_cells, rows)
                )
        if netron:
            _wait(log)


def _cells(row: Mapping[str, Any]) -> list[object]:
    largest = row["largest"]
    return [
        row["overlay"],
        row["layers"],
        row["not in the module"],
        f"{largest:,.6g}" if largest is not None else "",
        row["at"],
    ]


def _write(
    module: Module, path: Path, overlays: Mapping[str, Mapping[str, float]], *, use_netron: bool, host: str | None,
    port: int | None, external: bool,
) -> tuple[Path, ...]:  # fmt: skip
    if path.suffix == ".json":
        from hbir.viewers import save_model_explorer

        return save_model_explorer(module, path, overlays)
    from hbir.viewers import visualize

    visualize(module, path, use_netron, host, port, external)
    return (path, path.with_name(f"{path.name}.data")) if external else (path,)


def _wait(log: Log) -> None:
    from importlib import import_module

    log.info("Netron serves until Ctrl-C")
    import_module("netron").wait()


if __name__ == "__main__":
    main()
