"""hbir-bisect: the stock road, pipelines, the binary; what it says, and a case that shows the fault again."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from click.testing import CliRunner, Result
from xdsl.ir import SSAValue

from backends.nash.simulator.kernels import BINDERS
from hbir import export, load, save
from hbir.dialects.hbir import AddOp, Conv2dOp
from hbir.feeds import write_feed
from hbir.module import Module
from passes import calibrate, convert, fuse_conv_add_relu
from passes.common.rewriting import insert_before
from passes.debugging.equivalence import generated_inputs
from tools.hbir_bisect import main

TINY = Path("tests/data/tiny.onnx").resolve()


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def run_case(folder: Path, monkeypatch: pytest.MonkeyPatch, *extra: str) -> Result:
    """What the one command of a case does, in its folder."""
    monkeypatch.chdir(folder)
    program, *arguments = shlex.split((folder / "command.txt").read_text())
    assert program == "hbir-bisect"
    return run(*arguments, *extra)


@pytest.fixture(name="quantized", scope="module")
def integers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("module") / "tiny.bc"
    module = export(TINY)
    save(convert(calibrate(module, [generated_inputs(module[0])]), "nash-e"), path)
    return path


def test_the_whole_road_keeps_its_promises() -> None:
    result = run(TINY, "--march", "nash-e", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    stages = [row["stage"].partition("{")[0] for row in told["stages"]]
    assert told["fault"] is None and {"fold-constants", "calibrate", "quantize", "compile"} <= set(stages)
    assert stages[-1] == "compile" and told["stages"][-1]["promise"] == "EXACT"
    assert "every stage keeps its promise" in run(TINY, "-p", "dead-code").stdout


_fuse_add = fuse_conv_add_relu._fuse_add


def without_residual(op: AddOp, order: Any) -> SSAValue | None:
    """A fault: the sum goes, and the convolution does not get the other operand."""
    found = _fuse_add(op, order)
    fused = None if found is None else found.owner
    if not isinstance(fused, Conv2dOp):
        return None
    alone = Conv2dOp.make(fused.input, fused.weight, fused.bias, None, **fused.values)
    return insert_before(op, alone, [fused]).output


def test_a_fault_is_told_and_its_case_shows_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case, frame = tmp_path / "case", tmp_path / "frame.npz"
    write_feed(frame, {"x": np.random.default_rng(5).standard_normal((1, 3, 16, 16)).astype(np.float32)})
    with mock.patch.object(fuse_conv_add_relu, "_fuse_add", without_residual):
        result = run(TINY, "--feeds", frame, "-o", case)
        assert result.exit_code == 1, result.output
        lines = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines() if line}
        assert lines["pass"][0] == "fuse-conv-add-relu" and lines["fuse-conv-add-relu"][-1] == "WRONG"
        assert lines["layer"][:2] == ["block_add", "hbir.add,"] and "hbir.conv2d" in lines["layer"]
        assert lines["element"][0].startswith("block_add[0,") and lines["case"][:3] == ["2", "of", "21"]
        assert f"in {case}: hbir-bisect module.mlir -p fuse-conv-add-relu --feeds inputs.npz" in result.stderr
        assert sorted(path.name for path in case.iterdir()) == [
            *("command.txt", "inputs.npz", "module.mlir", "module.weights")
        ]
        told = json.loads(run_case(case, monkeypatch, "--json").stdout)
        assert told["fault"]["layer"] == "block_add" and len(told["stages"]) == 1
        assert f"is {told['fault']['element']['actual']}," in result.stdout, "the same element"
        assert Module.parse(told["fault"]["case"]["module"], load(case / "module.mlir").constants)
    assert run_case(case, monkeypatch).exit_code == 0, "without the fault the case is right"


def test_the_binary_is_the_last_stage(quantized: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_zero_point(v: Any, p: Any) -> Any:
        return BINDERS["REDUCE_SUM"](v, {**p, "zp_in": 0})

    faulty = dict(BINDERS) | {"REDUCE_SUM": without_zero_point}
    case = tmp_path / "case"
    with mock.patch("backends.nash.simulator.functional.BINDERS", faulty):
        result = run(quantized, "--march", "nash-e", "-o", case, "--json")
        assert result.exit_code == 1, result.output
        fault = json.loads(result.stdout)["fault"]
        assert fault["stage"] == "compile{march=nash-e}" and fault["layer"] == "pool"
        assert fault["operation"] == "quantized.reduce_sum" and fault["case"]["layers"] == ["pool"]
        assert fault["element"]["expected"] != fault["element"]["actual"]
        assert len(load(case / "module.mlir")[0].operations) == 1
        again = json.loads(run_case(case, monkeypatch, "--json").stdout)["fault"]
        assert again["element"] == fault["element"] and again["layer"] == "pool"
    assert run_case(case, monkeypatch).exit_code == 0, "the case is right without the fault"


def test_tolerances_are_of_all_or_of_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for options, code, stage in (
        (["--tolerance", "0.00001", "--tolerance", "calibrate=1"], 1, "quantize"),
        (["--tolerance", "quantize=0", "-o", tmp_path], 1, "quantize"),
        (["--tolerance", "0.1"], 0, None),
    ):
        result = run(TINY, *options, "--json")
        fault = json.loads(result.stdout)["fault"]
        assert result.exit_code == code, result.output
        assert stage == (fault and fault["stage"].partition("{")[0])
    assert "--tolerance quantize=0" in (tmp_path / "command.txt").read_text()
    assert run_case(tmp_path, monkeypatch).exit_code == 1


def test_a_calibrated_network_is_not_calibrated_again(tmp_path: Path) -> None:
    module = export(TINY)
    save(calibrate(module, [generated_inputs(module[0])]), tmp_path / "calibrated.bc")
    stages = [row["stage"] for row in json.loads(run(tmp_path / "calibrated.bc", "--json").stdout)["stages"]]
    assert "calibrate" not in stages and "quantize" in stages


def test_mistakes_have_a_status_of_their_own(quantized: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.npz"
    write_feed(wrong, {"z": np.zeros(3)})
    (tmp_path / "text.npz").write_text("no archive")
    for arguments, code in (
        ((quantized,), "HB0814"),
        ((tmp_path / "none.bc",), "HB0822"),
        ((TINY, "-p", "no-such-pass"), "HB0302"),
        ((quantized, "--march", "nash-x"), "HB05"),
        ((TINY, "-p", "dead-code", "--tolerance", "low"), "HB0813"),
        ((TINY, "-p", "dead-code", "--tolerance", "-1"), "HB0352"),
        ((TINY, "-p", "dead-code", "--feeds", wrong), "HB0232"),
        ((TINY, "-p", "dead-code", "--feeds", tmp_path / "text.npz"), "HB0414"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2 and code in result.stderr, (arguments, result.output)
