"""hbir-diff: two modules, two binaries, or the passes of a pipeline; text, JSON and HTML; its exit status is diff's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from xdsl.dialects.builtin import DenseArrayBase, i32

from backends.nash.hbm import write
from hbir import export, load, save
from hbir.ir.changes import Change, ModuleDiff
from hbir.viewers.diff_page import module_page
from passes import Pipeline, calibrate
from tests.backends.nash.samples import POOL_TEXT, pool_model
from tests.tools.small import build_model
from tools.hbir_diff import main

TINY = Path(__file__).parents[1] / "data" / "tiny.onnx"


@pytest.fixture(name="model", scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("model") / "small.onnx")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_a_module_is_what_its_files_hold(model: Path, tmp_path: Path) -> None:
    module = export(model)
    for name in ("m.bc", "m.mlir"):
        save(module, tmp_path / name)
    for other in (tmp_path / "m.mlir", model):
        result = run(tmp_path / "m.bc", other)
        assert result.exit_code == 0 and result.stdout.startswith("no difference"), result.output


def test_changes_are_told_in_text_and_json(model: Path, tmp_path: Path) -> None:
    module = export(model)
    save(module, tmp_path / "before.bc")
    save(Pipeline("canonicalize,cancel-transposes,fuse-activations").run(module), tmp_path / "after.bc")
    result = run(tmp_path / "before.bc", tmp_path / "after.bc")
    assert result.exit_code == 1
    assert "- hbir.transpose" in result.stdout and "@small" in result.stdout
    found = json.loads(run(tmp_path / "before.bc", tmp_path / "after.bc", "--json").stdout)
    assert {change["kind"] for change in found["changes"]} >= {"removed", "changed"}
    one = found["changes"][0]["layer"]
    only = json.loads(run(tmp_path / "before.bc", tmp_path / "after.bc", "--json", "--only", one).stdout)
    assert all(one in change["layer"] for change in only["changes"]) and only["changes"]
    assert run(tmp_path / "before.bc", tmp_path / "after.bc", "-q").stdout == ""


def test_each_pass_tells_what_it_did(model: Path) -> None:
    result = run(model, "-p", "dead-code,canonicalize,cancel-transposes", "--json")
    assert result.exit_code == 0
    steps = json.loads(result.stdout)
    assert [step["pass"] for step in steps] == ["cancel-transposes"]
    assert "cancel-transposes: " in run(model, "-p", "cancel-transposes").stdout


def test_mistakes_have_a_status_of_their_own(model: Path, tmp_path: Path) -> None:
    for arguments, code in (((), "HB0814"), ((model,), "HB0814"), ((model, tmp_path / "none.bc"), "HB0822")):
        result = run(*arguments)
        assert result.exit_code == 2 and code in result.stderr
    assert run(model, model, "-p", "dead-code").exit_code == 2


PASSES = "canonicalize,cancel-transposes,fuse-conv-add-relu"


@pytest.fixture(name="pair", scope="module")
def before_and_after(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A network, and what a pipeline made of it."""
    folder = tmp_path_factory.mktemp("pair")
    save(Pipeline(PASSES).run(export(model)), folder / "after.mlir")
    return model, folder / "after.mlir"


def test_changes_name_the_pass_that_did_it(pair: tuple[Path, Path]) -> None:
    text = run(*pair).stdout
    assert re.search(r"~ hbir\.conv2d 'conv1\+act1'   by .*fuse-conv-add-relu", text)
    assert re.search(r"- hbir\.clip 'act1': \S+   by fuse-conv-add-relu$", text, re.MULTILINE)
    found = json.loads(run(*pair, "--json").stdout)["changes"]
    names = {name for change in found for name in change["passes"]}
    assert names <= set(PASSES.split(",")) and "fuse-conv-add-relu" in names
    assert all(change["passes"] for change in found if change["kind"] == "added")
    assert all("cancel-transposes" in each["passes"] for each in found if each["before"] == "hbir.transpose")
    conv = next(change for change in found if change["layer"] == "conv1+act1")
    assert re.fullmatch(r"(\d+x)+f32", conv["after_type"])


@pytest.fixture(name="calibrated", scope="module")
def rounded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A convolution network with fake quantisation."""
    path = tmp_path_factory.mktemp("calibrated") / "calibrated.bc"
    feeds = [{"x": np.random.default_rng(0).standard_normal((1, 3, 16, 16)).astype(np.float32)}]
    save(calibrate(export(TINY), feeds, observer="max"), path)
    return path


def test_through_quantisation_a_weight_stays_a_weight(calibrated: Path) -> None:
    (step,) = json.loads(run(calibrated, "-p", "unify-scales,quantize", "--json").stdout)
    constants = [change for change in step["changes"] if change["before"] == change["after"] == "hbir.constant"]
    assert {change["before_type"]: change["after_type"].split("!")[0] for change in constants} == {
        "16x3x3x3xf32": "16x3x3x3x", "16x3x3x16xf32": "16x3x3x16x", "16xf32": "16xi32", "5x16xf32": "5x1x1x16x",
        "5xf32": "5xi32",
    }  # fmt: skip
    assert len(constants) == 6
    told = [each for change in step["changes"] for each in change["differences"]]
    assert told and all(each["before"] != each["after"] for each in told)
    assert not any("…" in each["after"] for each in told if each["what"] != "constant")
    multiplier = next(each["after"] for each in told if each["what"] == "attribute 'multiplier'")
    assert len(multiplier.split(",")) == 16 and multiplier.endswith(">")


def test_the_last_of_many_multipliers_is_told_in_text_json_and_html(calibrated: Path, tmp_path: Path) -> None:
    module = Pipeline("unify-scales,quantize").run(load(calibrated))
    save(module, tmp_path / "a.bc")
    conv = next(op for op in module[0].operations if op.name == "quantized.conv2d")
    multiplier = conv.properties["multiplier"]
    assert isinstance(multiplier, DenseArrayBase)
    numbers = [int(each) for each in multiplier.get_values()]
    conv.properties["multiplier"] = DenseArrayBase.from_list(i32, [*numbers[:-1], numbers[-1] + 2])
    save(module, tmp_path / "b.bc")
    files = (tmp_path / "a.bc", tmp_path / "b.bc")
    note = f"1 of 16 numbers differ, by 2 at most; first at 15: {numbers[-1]} -> {numbers[-1] + 2}"
    (change,) = json.loads(run(*files, "--json").stdout)["changes"]
    (difference,) = change["differences"]
    assert difference == {
        "what": "attribute 'multiplier'",
        "before": f"array<i32: {', '.join(map(str, numbers))}>",
        "after": f"array<i32: {', '.join(map(str, [*numbers[:-1], numbers[-1] + 2]))}>",
        "note": note,
    }
    (line,) = (line for line in run(*files).stdout.splitlines() if "multiplier" in line)
    before, after = line.split("   ")[-2].strip().split(" -> ")
    assert before.endswith(f" {numbers[-1]}>") and after.endswith(f" {numbers[-1] + 2}>") and note in line
    run(*files, "-o", tmp_path / "d.html")
    text = (tmp_path / "d.html").read_text()
    Page(text)
    (old,), (new,) = re.findall(r"<del>(.*?)</del>", text), re.findall(r"<ins>(.*?)</ins>", text)
    assert old.endswith(f" {numbers[-1]}&gt;") and new.endswith(f" {numbers[-1] + 2}&gt;")
    assert note.replace(">", "&gt;") in text


def test_with_a_pipeline_the_pass_of_what_was_removed_is_known(model: Path) -> None:
    (step,) = json.loads(run(model, "-p", "cancel-transposes", "--json").stdout)
    removed = [change for change in step["changes"] if change["kind"] == "removed"]
    assert removed and all(change["passes"] == ["cancel-transposes"] for change in removed)


class Page(HTMLParser):
    """What a page shows, and that its elements are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.classes: list[str] = []
        self.open: list[str] = []
        self.outside: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "input"):
            self.open.append(tag)
        for key, value in attrs:
            if key == "class":
                self.classes.append(value or "")
            if key in ("src", "href", "action") and not (value or "").startswith("#"):
                self.outside.append(str(value))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def rows(self, kind: str) -> int:
        return self.classes.count(f"r {kind}")


@pytest.mark.parametrize("option", ["-o", "--output", "--html"])
def test_the_page_holds_every_change_side_by_side(pair: tuple[Path, Path], tmp_path: Path, option: str) -> None:
    result = run(*pair, option, tmp_path / "diff.html")
    text = (tmp_path / "diff.html").read_text()
    page = Page(text)
    found = json.loads(run(*pair, "--json").stdout)
    kinds = [change["kind"] for change in found["changes"]]
    assert {kind: page.rows(kind) for kind in ("added", "removed", "changed")} == {
        kind: kinds.count(kind) for kind in ("added", "removed", "changed")
    }
    assert result.exit_code == 1 and len(result.stdout.splitlines()) == 1  # the counts alone
    assert re.search(r"<i>by [a-z, -]*fuse-conv-add-relu</i>", text)
    assert not page.outside and "http" not in text and str(tmp_path) not in text
    assert f"{pair[0].name} → {pair[1].name}" in text
    run(*pair, option, tmp_path / "again.html", "-q")
    assert (tmp_path / "again.html").read_bytes() == (tmp_path / "diff.html").read_bytes()


def test_the_page_of_a_pipeline_has_a_part_for_each_pass_that_changed_something(model: Path, tmp_path: Path) -> None:
    run(model, "-p", f"dead-code,{PASSES}", "-o", tmp_path / "p.html")
    text = (tmp_path / "p.html").read_text()
    Page(text)
    assert re.findall(r"<h2>(.*?)</h2>", text) == ["cancel-transposes", "fuse-conv-add-relu"]
    run(model, "-p", "dead-code", "-o", tmp_path / "none.html")
    assert "Nothing changed." in (tmp_path / "none.html").read_text()


def test_two_equal_modules_give_a_page_that_says_so(model: Path, tmp_path: Path) -> None:
    assert run(model, model, "-o", tmp_path / "same.html").exit_code == 0
    page = Page((tmp_path / "same.html").read_text())
    assert not any(page.rows(kind) for kind in ("added", "removed", "changed"))


def test_names_of_others_are_escaped() -> None:
    change = Change("main", "<script>alert(1)</script>", "a<b", None, (), 'x"&', "")
    text = module_page("<i>", [("</h2>", ModuleDiff((change,), 0, (change,)))])
    Page(text)
    assert "<script>alert" not in text and "&lt;script&gt;alert(1)" in text and "<i>" not in text.split("<style>")[0]


def rows_of(count: int, changed: set[int]) -> Iterator[Change]:
    for at in range(count):
        yield Change("main", f"layer{at}", "a.b", "a.c" if at in changed else "a.b", (), "4xf32", "4xf32")


def test_long_runs_are_folded_and_the_page_of_a_large_module_stays_small() -> None:
    rows = tuple(rows_of(20_000, {100, 10_000, 10_002}))
    changes = tuple(row for row in rows if row.kind != "same")
    text = module_page("large", [("", ModuleDiff(changes, len(rows) - len(changes), rows))])
    page = Page(text)
    assert (page.rows("changed"), page.rows("same"), text.count("<details>")) == (3, 1, 3)
    assert "9,899 the same: layer101 … layer9999" in text and "… 9779 more …" in text
    assert len(text) < 60_000


@pytest.fixture(name="binaries")
def two_binaries(tmp_path: Path) -> tuple[Path, Path]:
    """A parameter, a constant and an option differ."""
    model = pool_model()
    constants = memoryview(bytes([*model.constants[:-1], 0]))
    other = replace(
        pool_model(POOL_TEXT.replace("kernel_h=2", "kernel_h=1 pad_top=0")), constants=constants, options={"opt": 0}
    )
    write([model], tmp_path / "a.hbm")
    write([other], tmp_path / "b.hbm")
    return tmp_path / "a.hbm", tmp_path / "b.hbm"


def test_binaries_are_compared_in_text_json_and_html(binaries: tuple[Path, Path], tmp_path: Path) -> None:
    result = run(*binaries)
    assert result.exit_code == 1, result.output
    for line in (
        "~ options opt: 2 -> 0",
        "AAE0",
        "~ MAXPOOL 'pool' #1",
        "    kernel_h: 2 -> 1",
        "~ bytes that no instruction reads: 1 of 64 bytes differ, by 63 at most; first at 63: 63 -> 0",
        "instructions: 1 changed, 2 the same",
    ):
        assert line in result.stdout.splitlines(), (line, result.stdout)
    assert re.search(r"0/views +same ", result.stdout) and re.search(r"0/program +differs ", result.stdout)
    found: dict[str, Any] = json.loads(run(*binaries, "--json").stdout)
    (model,) = found["models"]
    (change,) = model["instructions"]["changes"]
    assert (change["function"], change["before_index"], change["differences"][0]["what"]) == ("AAE0", 1, "kernel_h")
    assert model["constants"][0]["differing"] == 1
    result = run(*binaries, "-o", tmp_path / "d.html")
    assert result.exit_code == 1 and "kernel_h" not in result.stdout
    text = (tmp_path / "d.html").read_text()
    assert Page(text).rows("changed") == 3 and "kernel_h" in text and str(tmp_path) not in text
    sides = [re.findall(rf"<{tag}>(.*?)</{tag}>", text) for tag in ("del", "ins")]
    assert sides[0] and all(old != new for old, new in zip(*sides, strict=True))


def test_binaries_of_equal_content_do_not_differ(binaries: tuple[Path, Path], tmp_path: Path) -> None:
    result = run(binaries[0], binaries[0], "-o", tmp_path / "same.html")
    assert result.exit_code == 0 and result.stdout == "no difference\n"
    assert "Nothing differs." in (tmp_path / "same.html").read_text()


def test_only_narrows_binaries_as_well(binaries: tuple[Path, Path]) -> None:
    shown = json.loads(run(*binaries, "--only", "elsewhere", "--json").stdout)["models"][0]
    assert not shown["instructions"]["changes"] and not shown["constants"] and shown["description"]


def test_what_cannot_be_compared_is_refused(binaries: tuple[Path, Path], model: Path, tmp_path: Path) -> None:
    save(export(model), tmp_path / "m.bc")
    cases: tuple[tuple[tuple[object, ...], str], ...] = (
        ((binaries[0], model), "HB0816"),
        ((tmp_path / "m.bc", binaries[0]), "HB0816"),
        ((binaries[0], "-p", "dead-code"), "HB0816"),
        ((model, tmp_path / "m.bc", "-o", tmp_path / "x.txt"), "HB0817"),
        ((binaries[0], tmp_path / "none.hbm"), "HB0822"),
        ((model, tmp_path / "m.bc", "-o", model / "x.html"), "HB0801"),
    )
    for arguments, code in cases:
        result = run(*arguments)
        assert result.exit_code == 2 and code in result.stderr, (arguments, result.output)


def test_large_files_are_told_that_work_is_under_way(
    pair: tuple[Path, Path], binaries: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(*pair).stderr == run(*binaries).stderr == ""
    monkeypatch.setattr("tools.hbir_diff._LARGE", 10)
    for files in (pair, binaries):
        assert "Start to compare the files." in run(*files).stderr
        assert run(*files, "-q").stderr == ""
        assert json.loads(run(*files, "--json").stdout)
