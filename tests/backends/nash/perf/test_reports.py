"""The written reports: published keys, sums that agree with the simulator, pages that need nothing else and trust no name."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.nash.hbm import Model, write
from backends.nash.isa import Program
from backends.nash.perf import hbm_perf, layer_table, page, perf_json, report, trace_json, write_reports
from backends.nash.simulator import simulate
from hbir.errors import ConfigError, FileFormatError
from tests.backends.nash.samples import ConvLayer, pool_model, tiled_conv_model


def chain(march: str = "nash-e") -> Model:
    random = np.random.default_rng(0)
    layers = [ConvLayer.random(random, 32, 3, 16), ConvLayer.random(random, 16, 1, 32)]
    return tiled_conv_model(layers, 24, 20, 8, march)


def renamed(model: Model, *names: str) -> Model:
    program = model.program
    return replace(model, program=Program(program.instructions, program.views, names))


def test_published_keys_are_exactly_these() -> None:
    value = perf_json(report(chain()))
    summary = value["summary"]
    assert list(value) == ["summary", "coreSummaryGroup", "details", "extensions"]
    assert list(summary) == ["performance", "DDR access data", "interval info", "layer details", "model info"]
    assert list(summary["performance"]) == ["FPS", "latency (us)", "latency (ms)", "latency (us) by segments"]
    assert set(summary["DDR access data"]) == {
        *("DDR megabytes per run", "DDR bytes per run", "DDR bytes per second( for n FPS)", "loaded bytes per run"),
        *(
            "stored bytes per run",
            "min memory requirement",
            "input memory",
            "output memory",
            "static memory",
            "dynamic memory",
        ),
    }
    assert list(summary["interval info"]) == [
        *("interval number", "interval time (ms)", "interval computing unit utilization"),
        *("interval ddr loading bandwidth (megabytes/s)", "interval ddr storing bandwidth (megabytes/s)"),
    ]
    assert list(summary["layer details"][0]) == [
        *("layer name", "active period of time", "computing cost (no DDR)", "load cost", "store cost", "origin ops"),
    ]
    assert list(summary["model info"]) == [
        *("BPU march", "BPU core number", "compiling HBDK version", "compiling options", "original conv ops"),
        *("double int8 macs", "feature int16 weight int8 macs", "feature int8 weight int16 macs", "double int16 macs"),
    ]
    assert list(value["details"][0][0]) == ["inst_type", "source_layer_names", "start_time (us)", "working_time (us)"]


def test_numbers_agree_with_the_simulator() -> None:
    model = chain("nash-m")
    value, timing = report(model), simulate(model)
    assert value.cycles == timing.cycles == sum(row.cycles for row in value.layers) + value.idle_cycles
    assert (value.ddr_read, value.ddr_written) == (timing.ddr_read, timing.ddr_written)
    # conv0: 24 x 20 pixels, 9 taps, 16 to 32 channels; conv1: 1 tap, 32 to 16.
    assert value.macs["double int8 macs"] == 480 * (9 * 16 * 32 + 32 * 16)
    assert value.board_us == value.dispatch_us + value.device_us
    assert value.dispatch_us == pytest.approx(1e6 * model.march.dispatch_seconds)
    written = perf_json(value)
    moved = written["summary"]["interval info"]
    seconds = moved["interval time (ms)"] / 1e3
    assert sum(moved["interval ddr loading bandwidth (megabytes/s)"]) * seconds * 1e6 == pytest.approx(timing.ddr_read)
    assert sum(moved["interval ddr storing bandwidth (megabytes/s)"]) * seconds * 1e6 == pytest.approx(
        timing.ddr_written
    )
    last = max(d["start_time (us)"] + d["working_time (us)"] for d in written["details"][0])
    assert last == pytest.approx(value.device_us)
    busy = {unit["unit"]: unit["busy (us)"] for unit in written["extensions"]["units"]}
    for unit, total in busy.items():
        assert total == pytest.approx(
            sum(d["working_time (us)"] for d in written["details"][0] if d["inst_type"] == unit)
        )


def test_memory_adds_up() -> None:
    model = chain()
    memory = report(model, file_bytes=5000).memory
    assert (memory.input, memory.output, memory.static) == (24 * 20 * 16, 24 * 20 * 16, 5000)
    assert memory.minimum == memory.dynamic + 5000
    assert memory.dynamic == model.memories.ddr - model.memories.constants


def test_placements_name_operation_unit_and_reason() -> None:
    rows: tuple[dict[str, Any], ...] = (
        {"layer": "conv1", "op": "quantized.conv2d", "unit": "TAE", "reason": "", "tiles": 3, "macs": 7},
        {
            "layer": "conv1",
            "op": "quantized.dequantize",
            "unit": "HOST",
            "reason": "no unit does it",
            "tiles": 1,
            "macs": 0,
        },
    )
    first, second = report(replace(chain(), placements=rows)).layers
    assert (first.layer, first.op, first.unit) == ("conv1", "quantized.conv2d, quantized.dequantize", "TAE, HOST")
    assert (first.reason, first.tiles, first.macs) == ("no unit does it", 4, 7)
    assert (second.layer, second.unit) == ("conv0", "TAE")


def test_trace_has_a_thread_for_each_unit() -> None:
    value = report(chain())
    events = trace_json(value)["traceEvents"]
    threads = {e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert threads == {"LOAD", "TAE", "STORE"}
    slices = [e for e in events if e["ph"] == "X"]
    assert len(slices) == len(value.spans)
    assert sum(e["args"]["DDR bytes"] for e in slices) == value.ddr_bytes


def test_table_has_a_line_for_each_layer() -> None:
    rows = list(csv.DictReader(io.StringIO(layer_table(report(renamed(chain(), 'a,"b"', "c\nd"))))))
    assert [row["layer"] for row in rows] == ['a,"b"', "c\nd"]
    assert {row["limited_by"] for row in rows} <= {"compute", "vector", "layout", "load", "store", "host"}


def test_page_is_self_contained_and_escapes_names() -> None:
    hostile = "</script><script>alert(1)</script>"
    text = page(report(renamed(chain(), hostile, '"><img src=x onerror=alert(2)>')))
    assert not re.search(r"https?://|<link|@import|\bsrc=[\"']", text)
    assert text.count("<script") == text.count("</script") == 1
    assert "<img" not in text
    data = re.search(r"const DATA = (\{.*?\}), CHART = ", text, re.S)
    assert data is not None
    timeline = json.loads(data[1])
    assert timeline["layers"][0] == hostile
    assert len(timeline["slices"]) == len(chain().program)


def test_a_model_without_names_has_a_report() -> None:
    value = report(renamed(chain()))
    assert [row.layer for row in value.layers] == ["layer 0", "layer 1"]
    assert "layer 1" in page(value)


def test_files_are_the_same_each_time(tmp_path: Path) -> None:
    paths = [write_reports(chain(), tmp_path / part, "m") for part in ("a", "b")]
    assert [p.name for p in paths[0]] == ["m.html", "m.json", "m.csv", "m_trace.json"]
    for first, second in zip(*paths, strict=True):
        assert first.read_bytes() == second.read_bytes()


def test_hbm_perf_writes_every_model_of_a_file(tmp_path: Path) -> None:
    write([pool_model(), replace(chain(), name="../up")], tmp_path / "two.hbm")
    assert hbm_perf(tmp_path / "two.hbm", tmp_path / "out") == 0
    assert {p.suffix for p in (tmp_path / "out").iterdir()} == {".html", ".json", ".csv"}
    assert sorted(p.name for p in (tmp_path / "out").glob("*.html")) == ["_up.html", "pool.html"]
    static = json.loads((tmp_path / "out/pool.json").read_text())["summary"]["DDR access data"]["static memory"]
    assert static == (tmp_path / "two.hbm").stat().st_size


def test_hbm_perf_refuses_damage_and_bad_folders(tmp_path: Path) -> None:
    write([pool_model()], tmp_path / "a.hbm")
    (tmp_path / "b.hbm").write_bytes((tmp_path / "a.hbm").read_bytes()[:-1])
    with pytest.raises(FileFormatError, match="HB0621"):
        hbm_perf(tmp_path / "b.hbm")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="HB0801"):
        hbm_perf(tmp_path / "a.hbm", tmp_path / "file")
