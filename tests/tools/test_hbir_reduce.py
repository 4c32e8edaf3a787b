"""hbir-reduce: commands and failing pipelines as predicates, what is written, Ctrl-C, mistakes."""

from __future__ import annotations

import json
import time
from pathlib import Path
from unittest import mock

import pytest
from click.testing import CliRunner, Result

from hbir import export, load, save
from tools import hbir_reduce
from tools.hbir_reduce import main

TINY = Path("tests/data/tiny.onnx")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(name="module", scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("module") / "tiny.mlir"
    save(export(TINY), path)
    return path


def test_a_command_decides(module: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.mlir"
    result = run(module, "--test", "grep -q hbir.mul {}", "-o", small)
    assert result.exit_code == 0, result.output
    assert [op.name for op in load(small)[0].operations] == ["hbir.mul"]
    assert result.stdout == "" and "21 operations at the start" in result.stderr
    assert "1 of 21 operations are left" in result.stderr
    # Without {} the path comes last, and without -o the module is printed.
    printed = run(module, "--test", "grep -q hbir.mul", "-q")
    assert printed.stdout == small.read_text() and printed.stderr == ""


def test_candidates_have_the_form_of_the_output(module: Path, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    assert run(module, "--test", f"ls $(dirname {{}}) >> {seen}; test -s {{}}", "-o", tmp_path / "s.bc").exit_code == 0
    assert set(seen.read_text().split()) == {"candidate.bc"}
    seen.unlink()
    assert run(TINY, "--test", f"ls $(dirname {{}}) >> {seen}; test -s {{}}", "-q").exit_code == 0
    assert set(seen.read_text().split()) == {"candidate.mlir", "candidate.weights"}


def test_a_failing_pipeline_decides(module: Path, tmp_path: Path) -> None:
    def no_sums(op: object, order: object) -> None:
        raise AttributeError("'Block' object has no attribute 'values'")

    small = tmp_path / "small.mlir"
    with mock.patch("passes.fuse_conv_add_relu._fuse_add", no_sums):
        for extra in ([], ["--fails", "AttributeError"]):
            result = run(module, "-p", "cancel-transposes,fuse-conv-add-relu", *extra, "-o", small, "--json")
            assert result.exit_code == 0, result.output
            told = json.loads(result.stdout)
            assert told["operations before"] == 21 and told["operations"] == 1 and told["tests"] > 3
            assert told["output"] == str(small) and [op.name for op in load(small)[0].operations] == ["hbir.add"]
        other = run(module, "-p", "cancel-transposes,fuse-conv-add-relu", "--fails", "HB0305")
        assert other.exit_code == 1 and "HB0350: the pipeline fails with AttributeError on the whole" in other.stderr
        assert "--fails asks for HB0305" in other.stderr


def test_json_holds_a_module_that_is_not_written(module: Path) -> None:
    told = json.loads(run(module, "--test", "grep -q hbir.mul", "--json", "-q").stdout)
    assert "hbir.mul" in told["module"] and "output" not in told


def test_numbers_stay_with_cut_only(module: Path) -> None:
    test = "grep -q hbir.constant {} && grep -q hbir.conv2d {}"
    texts = [run(module, "--test", test, "-q", *extra).stdout for extra in ([], ["--cut-only"])]
    used = [line.split("<")[2].split(",")[0] for text in texts for line in text.splitlines() if "hbir.constant" in line]
    whole = module.read_text()
    assert used[1] in whole and used[0] not in whole


def test_what_takes_too_long_is_not_interesting(module: Path) -> None:
    # The shell's child keeps running unless its whole session ends.
    start = time.monotonic()
    result = run(module, "--test", "sleep 60; true", "--timeout", "0.2")
    assert result.exit_code == 1 and "HB0350" in result.stderr and "takes longer than 0.2 s" in result.stderr
    assert time.monotonic() - start < 20


def test_an_interrupt_leaves_the_smallest_so_far(module: Path, tmp_path: Path) -> None:
    small, calls = tmp_path / "small.mlir", 0
    real = hbir_reduce._Command._run

    def interrupted(self: hbir_reduce._Command) -> int | None:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise KeyboardInterrupt
        return real(self)

    with mock.patch.object(hbir_reduce._Command, "_run", interrupted):
        result = run(module, "--test", "grep -q hbir.mul {}", "-o", small)
        assert result.exit_code == 130 and "stopped after" in result.stderr
        left = [op.name for op in load(small)[0].operations]
        assert "hbir.mul" in left and len(left) < 21
        calls = 0
        result = run(module, "--test", "grep -q hbir.mul {}")
        assert result.exit_code == 130 and result.stdout == "" and "nothing was written" in result.stderr


def test_what_is_not_interesting_is_told_with_what_was_run(module: Path) -> None:
    result = run(module, "-p", "dead-code,canonicalize")
    assert result.exit_code == 1
    assert "HB0350: the pipeline 'dead-code,canonicalize' passes on the whole of tiny.mlir" in result.stderr
    assert "on generated inputs. Change: give a module and a pipeline that fail" in result.stderr
    result = run(module, "--test", "test -d {}")
    assert result.exit_code == 1
    assert "HB0350: the command of --test exits with 1 for the whole of tiny.mlir" in result.stderr
    assert "it was run as: test -d /" in result.stderr and "exits with 0" in result.stderr
    late = run(module, "-p", "dead-code", "--fails", "HB0305")
    assert "the pipeline passes on the whole of tiny.mlir, and --fails asks for HB0305" in late.stderr


def test_what_the_command_said_is_told(module: Path) -> None:
    # Without {} the path comes last: sleep takes it for a second duration and ends at once, which is not the time limit.
    result = run(module, "--test", "sleep 100", "--timeout", "50")
    assert "exits with 1" in result.stderr and "it said: sleep: " in result.stderr
    result = run(module, "--test", "echo $(seq 500) >&2; : {}; false")
    assert "it said: …" in result.stderr and " 499 500. Change:" in result.stderr and " 300 " not in result.stderr
    assert "it said" not in run(module, "--test", "test -d {}").stderr


def test_mistakes_are_told(module: Path, tmp_path: Path) -> None:
    for arguments, code in (
        ((module,), "HB0814"),
        ((module, "--test", "true", "-p", "dead-code"), "HB0814"),
        ((module, "--test", "true", "--fails", "HB0305"), "HB0814"),
        ((module, "--test", "no-such-program {}"), "HB0813"),
        ((module, "--test", "false"), "HB0350"),
        ((module, "-p", "dead-code"), "HB0350"),
        ((module, "-p", "no-such-pass"), "HB0302"),
        ((module, "--test", "true", "-o", tmp_path / "small.txt"), "HB0817"),
        ((tmp_path / "none.mlir", "--test", "true"), "HB0822"),
    ):
        result = run(*arguments)
        assert result.exit_code == 1 and code in result.stderr, (arguments, result.output)
