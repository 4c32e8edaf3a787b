"""The Python face of the backends: what it hands out, and what it refuses before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backends
from backends import Hbm
from backends.nash.simulator import simulate
from hbir.errors import BackendError, FileFormatError, HbError, SimulationError
from hbir.march import load_march
from tests.backends.nash.small_networks import small_network


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Hbm:
    module, _ = small_network("two_inputs")
    return backends.compile(module, tmp_path_factory.mktemp("api") / "net.hbm", "nash-e", desc="two maps are added")


def test_a_binary_tells_what_it_is(binary: Hbm) -> None:
    assert binary.march_name == "nash-e"
    assert binary.desc == "two maps are added"
    assert binary.toolkit_version
    assert [function.name for function in binary.functions] == [binary[0].name]
    assert binary.graphs == binary.functions
    assert binary[binary[0].name] is binary[0]
    function = binary[0]
    assert [(t.name, t.shape, t.dtype) for t in function.flatten_inputs] == [
        (name, (1, 8, 12, 10), np.dtype(np.float32)) for name in "xz"
    ]
    assert [t.name for t in function.flatten_outputs] == ["y"]


def test_a_binary_runs_by_name_and_by_position(binary: Hbm) -> None:
    module, feeds = small_network("two_inputs")
    expected = module[0].feed(feeds[0])["y"]
    assert binary[0].feed(feeds[0])["y"].tobytes() == expected.tobytes()
    (found,) = binary[0](feeds[0]["x"], feeds[0]["z"])
    assert found.tobytes() == expected.tobytes()
    with pytest.raises(BackendError) as refusal:
        binary[0](feeds[0]["x"])
    assert refusal.value.code == "HB0561"


def test_unknown_models_are_refused_with_the_known_ones(binary: Hbm) -> None:
    with pytest.raises(BackendError) as refusal:
        binary["nobody"]
    assert refusal.value.code == "HB0562"
    assert binary[0].name in refusal.value.lever


def test_positions_end_and_iteration_does(binary: Hbm) -> None:
    assert len(binary) == 1
    assert [function.name for function in binary] == [binary[-1].name]
    for key in (1, -2, None, 0.0, True, slice(0, 1)):
        with pytest.raises(BackendError) as refusal:
            binary[key]
        assert refusal.value.code == "HB0562"
        assert refusal.value.lever


@pytest.mark.parametrize("inputs", [None, 3, [1], "x"])
def test_inputs_that_are_no_dictionary_are_refused(binary: Hbm, inputs: Any) -> None:
    with pytest.raises(BackendError) as refusal:
        binary[0].feed(inputs)
    assert refusal.value.code == "HB0561"
    assert "'x', 'z'" in refusal.value.lever


@pytest.mark.parametrize("fault", ["name", "missing", "shape", "dtype"])
def test_wrong_feeds_are_refused(binary: Hbm, fault: str) -> None:
    _, feeds = small_network("two_inputs")
    feed: dict[str, Any] = dict(feeds[0])
    match fault:
        case "name":
            feed["w"] = feed.pop("x")
        case "missing":
            del feed["x"]
        case "shape":
            feed["x"] = feed["x"][:, :4]
        case _:
            feed["x"] = feed["x"].astype(np.float64)
    with pytest.raises(SimulationError) as refusal:
        binary[0].feed(feed)
    assert refusal.value.code in ("HB0708", "HB0709")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"opt": 3}, "opt"),
        ({"opt": -1}, "opt"),
        ({"balance": 101}, "balance"),
        ({"balance": -1}, "balance"),
        ({"core_num": 0}, "core_num"),
        ({"core_num": 5}, "core_num"),
        ({"max_l2m_size": -1}, "max_l2m_size"),
        ({"max_l2m_size": 1 << 40}, "max_l2m_size"),
        ({"opt": "2"}, "opt"),
        ({"opt": None}, "opt"),
        ({"opt": [2]}, "opt"),
        ({"opt": True}, "opt"),
        ({"balance": 50.5}, "balance"),
        ({"core_num": None}, "core_num"),
        ({"core_num": 1.0}, "core_num"),
        ({"core_num": [1]}, "core_num"),
        ({"max_l2m_size": "0"}, "max_l2m_size"),
        ({"debug": "no"}, "debug"),
        ({"desc": 3}, "desc"),
        ({"desc": "\ud800"}, "desc"),
        ({"progress": 3}, "progress"),
    ],
)
@pytest.mark.parametrize("march", ["nash-e", "nash-p"])
def test_options_that_a_march_cannot_serve(tmp_path: Path, options: dict[str, Any], word: str, march: str) -> None:
    module, _ = small_network("chain", march)
    with pytest.raises(BackendError) as refusal:
        backends.compile(module, tmp_path / "a.hbm", march, **options)
    assert refusal.value.code == "HB0551"
    assert word in refusal.value.what
    assert refusal.value.lever
    assert list(tmp_path.iterdir()) == []


MISUSES: dict[str, tuple[str, Callable[[Any, Path], object]]] = {
    "march 7": ("HB0501", lambda m, p: backends.compile(m, p / "a.hbm", 7)),
    "march None": ("HB0501", lambda m, p: backends.compile(m, p / "a.hbm", None)),
    "path None": ("HB0563", lambda m, _: backends.compile(m, None, "nash-e")),
    "path with a zero": ("HB0563", lambda m, p: backends.compile(m, f"{p}/\0.hbm", "nash-e")),
    "module None": ("HB0236", lambda _, p: backends.compile(None, p / "a.hbm", "nash-e")),
    "link nothing": ("HB0565", lambda _, p: backends.link([], p / "a.hbm")),
    "link None": ("HB0565", lambda _, p: backends.link(None, p / "a.hbm")),
    "link one path": ("HB0565", lambda _, p: backends.link("a.hbm", p / "a.hbm")),
    "link numbers": ("HB0563", lambda _, p: backends.link([3], p / "a.hbm")),
    "link to a number": ("HB0563", lambda _, p: backends.link([p], 3)),
    "link to another kind": ("HB0563", lambda _, p: backends.link([p], p / "a.bin")),
    "read None": ("HB0563", lambda _, p: Hbm(None)),
    "perf of None": ("HB0563", lambda _, p: backends.hbm_perf(None)),
    "perf of a missing file": ("HB0628", lambda _, p: backends.hbm_perf(p / "none.hbm")),
    "perf of a folder": ("HB0628", lambda _, p: backends.hbm_perf(p)),
}


@pytest.mark.parametrize("name", MISUSES)
def test_misuse_is_refused_and_writes_nothing(tmp_path: Path, name: str) -> None:
    code, misuse = MISUSES[name]
    with pytest.raises(HbError) as refusal:
        misuse(small_network("chain")[0], tmp_path)
    assert refusal.value.code == code
    assert refusal.value.lever
    assert list(tmp_path.iterdir()) == []


def test_l2m_on_a_march_without_it_is_refused(tmp_path: Path) -> None:
    module, _ = small_network("chain")
    with pytest.raises(BackendError, match="max_l2m_size"):
        backends.compile(module, tmp_path / "a.hbm", "nash-e", max_l2m_size=64)


@pytest.mark.parametrize("name", ["a.bin", "a", "a.hbm.txt"])
def test_other_file_names_are_refused(tmp_path: Path, name: str) -> None:
    module, _ = small_network("chain")
    with pytest.raises(BackendError) as refusal:
        backends.compile(module, tmp_path / name, "nash-e")
    assert refusal.value.code == "HB0563"
    assert list(tmp_path.iterdir()) == []


def test_a_module_for_another_march_is_refused(tmp_path: Path) -> None:
    module, _ = small_network("chain", "nash-e")
    with pytest.raises(BackendError) as refusal:
        backends.compile(module, tmp_path / "a.hbm", "nash-p")
    assert refusal.value.code == "HB0564"
    assert "nash-e" in str(refusal.value)
    assert "nash-p" in str(refusal.value)


def test_a_failed_compile_keeps_the_old_file(tmp_path: Path) -> None:
    module, _ = small_network("chain")
    path = tmp_path / "a.hbm"
    backends.compile(module, path, "nash-e", 0)
    before = path.read_bytes()
    with pytest.raises(BackendError):
        backends.compile(module, path, "nash-e", 9)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.hbm"]


def test_progress_names_every_stage_and_reaches_its_end(tmp_path: Path) -> None:
    module, _ = small_network("chain")
    seen: list[tuple[str, float]] = []
    backends.compile(module, tmp_path / "a.hbm", "nash-e", progress=lambda stage, done: seen.append((stage, done)))
    assert seen[0] == ("lower", 0.0)
    assert seen[-1] == ("tile and schedule", 1.0)
    shares = [done for stage, done in seen if stage == "tile and schedule"]
    assert shares == sorted(shares)


def test_the_search_takes_the_best_plan_for_its_balance(tmp_path: Path) -> None:
    module, _ = small_network("many_channels", "nash-p")
    results = {}
    for balance in (0, 100):
        model = backends.compile(module, tmp_path / "a.hbm", "nash-p", balance=balance).models[0]
        timing = simulate(model)
        results[balance] = (timing.cycles, timing.ddr_read + timing.ddr_written)
    assert results[100][0] <= results[0][0]
    assert results[0][1] <= results[100][1]


def test_debug_false_leaves_the_layer_names_out(tmp_path: Path) -> None:
    module, _ = small_network("chain")
    small = backends.compile(module, tmp_path / "small.hbm", "nash-e", debug=False)
    full = backends.compile(module, tmp_path / "full.hbm", "nash-e")
    assert small.models[0].placements == ()
    assert small.models[0].program.layers == ()
    assert {row["layer"] for row in full.models[0].placements} >= {"y"}
    assert small.path.stat().st_size < full.path.stat().st_size


def test_options_are_kept_in_the_binary(tmp_path: Path) -> None:
    module, _ = small_network("chain", "nash-p")
    found = backends.compile(
        module, tmp_path / "a.hbm", load_march("nash-p"), 1, balance=50, core_num=2, max_l2m_size=None
    )
    assert dict(found.models[0].options) == {
        "opt": 1,
        "balance": 50,
        "core_num": 2,
        "max_l2m_size": load_march("nash-p").l2m_bytes,
    }


def test_two_models_of_one_name_do_not_link(tmp_path: Path) -> None:
    module, _ = small_network("chain")
    part = backends.compile(module, tmp_path / "a.hbm", "nash-e", 0)
    with pytest.raises((FileFormatError, BackendError)):
        backends.link([part, part.path], tmp_path / "b.hbm")
    assert not (tmp_path / "b.hbm").exists()


def test_reports_are_written(tmp_path: Path) -> None:
    module, _ = small_network("chain")
    part = backends.compile(module, tmp_path / "a.hbm", "nash-e", 0)
    assert backends.hbm_perf(part.path, tmp_path / "reports") == 0
    assert {path.suffix for path in (tmp_path / "reports").iterdir()} >= {".html", ".json", ".csv"}


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError):
        Hbm(tmp_path / "none.hbm")
