"""Layer names and the passes behind an operation, in every form that a location takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from xdsl.dialects import builtin as b
from xdsl.ir import Attribute

from hbir import export, load, save
from hbir.errors import IrError
from hbir.ir.locations import fuse_locations, layer_name, location_names, location_passes, name_location, tag_location
from hbir.module import Module
from passes import Pipeline
from tests.mlir_tools import check_both_directions, joined, run_tosa_opt

RELU = """"builtin.module"() ({
  "func.func"() <{function_type = (tensor<2xf32>) -> tensor<2xf32>, sym_name = "main"}> ({
  ^bb0(%arg0: tensor<2xf32>):
    %0 = "hbir.clip"(%arg0) <{min = 0.0 : f64}> : (tensor<2xf32>) -> tensor<2xf32> loc(LOCATION)
    "func.return"(%0) : (tensor<2xf32>) -> ()
  }) : () -> ()
}) : () -> ()
"""

CASES = (
    ('"relu"', "relu", ()),
    ('fused["conv", "relu"]', "conv+relu", ()),
    ('fused<"quantize">["relu"]', "relu", ("quantize",)),
    ('fused<["fuse", "quantize"]>["conv", "relu"]', "conv+relu", ("fuse", "quantize")),
    ('fused<"quantize">[unknown]', "hbir.clip", ("quantize",)),
    ('fused<"outer">[fused<"inner">["a"], "b"]', "a+b", ("outer",)),
    ("fused<7 : i64>[\"relu\"]", "relu", ()),
    ('callsite("relu" at "main")', "relu", ()),
)  # fmt: skip


def clip(text: str) -> tuple[Module, Attribute]:
    module = Module.parse(RELU.replace("LOCATION", text))
    return module, module[0].operations[0].location


@pytest.mark.parametrize(("text", "layer", "passes"), CASES)
def test_names_and_passes_are_read_and_survive_both_files(
    text: str, layer: str, passes: tuple[str, ...], tmp_path: Path
) -> None:
    module, location = clip(text)
    assert layer_name(module[0].operations[0]) == layer
    assert location_passes(location) == passes
    for name in ("m.mlir", "m.bc"):
        save(module, tmp_path / name)
        assert load(tmp_path / name)[0].operations[0].location == location


@pytest.mark.parametrize(("text", "layer", "_"), CASES)
def test_a_tag_keeps_the_names_and_replaces_the_tag_before_it(text: str, layer: str, _: object) -> None:
    module, location = clip(text)
    op = module[0].operations[0]
    names = location_names(op)
    for passes in (("a",), ("a", "b"), ("c",), ()):
        op.location = tag_location(op.location, passes)
        assert (location_names(op), layer_name(op), location_passes(op.location)) == (names, layer, passes)
    if not isinstance(location, b.FusedLoc) or isinstance(location.metadata, b.NoneAttr):
        assert op.location == location


def test_fusing_takes_the_names_alone() -> None:
    tagged = tag_location(name_location("conv"), ("quantize",))
    assert fuse_locations([tagged, name_location("relu")]) == fuse_locations(map(name_location, ("conv", "relu")))


def test_mlir_keeps_the_tags(tmp_path: Path) -> None:
    check_both_directions(joined([clip(text)[0] for text, _, _ in CASES]), tmp_path)
    save(clip(CASES[3][0])[0], tmp_path / "m.bc")
    read = run_tosa_opt(
        "--mlir-print-op-generic", "--mlir-print-local-scope", "--mlir-print-debuginfo", tmp_path / "m.bc"
    )
    assert f"loc({CASES[3][0]})" in read


@pytest.mark.parametrize("text", ['fused<"a"', 'fused<>["a"]', 'fused<"a">"b"', 'fused<"a">[tensor<2xf32>]', "fused<"])
def test_damaged_locations_are_refused(text: str) -> None:
    with pytest.raises(IrError) as caught:
        clip(text)
    assert caught.value.code == "HB0205"


def test_names_of_passes_need_not_be_ascii() -> None:
    module, _ = clip('fused<"größe">["schicht"]')
    assert location_passes(Module.parse(str(module))[0].operations[0].location) == ("größe",)


def test_names_of_locations_may_stand_behind_their_uses(tmp_path: Path) -> None:
    """MLIR prints them so unless it is asked for local scope."""
    module = Pipeline("cancel-transposes,canonicalize,fuse-conv-add-relu").run(export("tests/data/tiny.onnx"))
    save(module, tmp_path / "m.mlir")
    text = run_tosa_opt("--mlir-print-op-generic", "--mlir-print-debuginfo", tmp_path / "m.mlir")
    assert text.rstrip().splitlines()[-1].startswith("#loc")
    assert str(Module.parse(text, module.constants)) == str(module)
    wrong = text.replace('"hbir.linear"', '"hbir.linaer"')
    line = wrong[: wrong.index("linaer")].count("\n") + 1
    with pytest.raises(IrError, match=f"HB0205.*line {line}"):
        Module.parse(wrong, module.constants)
