"""Pipelines: their text, options, errors, reports, verification and reproducers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pytest
from xdsl.dialects.builtin import f32
from xdsl.utils.arg_spec import parse_pipeline

from hbir import load
from hbir.dialects.hbir import AddOp, ClipOp, constant
from hbir.errors import HbError, IrError, PassError
from hbir.feeds import read_feed
from hbir.march import load_march
from hbir.module import Module
from passes import Pass, Pipeline, Promise, convert, load_pass, manager
from passes.convert import convert_pipeline
from passes.debugging.trace import Trace
from passes.fold_constants import FoldConstants
from passes.manager import PassReport, pass_text

NETWORK = """
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<2x3xf32>) -> tensor<2x3xf32>}> ({
  ^bb0(%x: tensor<2x3xf32>):
    %0 = "hbir.clip"(%x) <{min = 0.0 : f64}> : (tensor<2x3xf32>) -> tensor<2x3xf32> loc("a")
    %1 = "hbir.clip"(%0) <{max = 6.0 : f64}> : (tensor<2x3xf32>) -> tensor<2x3xf32> loc("b")
    "func.return"(%1) : (tensor<2x3xf32>) -> ()
  }) : () -> ()
}) : () -> ()
"""


@dataclass(frozen=True)
class AddsOne(Pass):
    """Breaks every promise, on purpose."""

    name: ClassVar[str] = "adds-one"
    promise: ClassVar[Promise] = Promise.EXACT

    amount: float = 1.0

    def run(self, module: Module) -> None:
        function = module[0]
        last = function.return_op
        one = constant(np.full((3,), self.amount, np.float32), module.constants, f32)
        added = AddOp.make(last.operands[0], one.output)
        for op in (one, added):
            function.op.body.block.insert_op_before(op, last)
        last.operands[0] = added.output


@dataclass(frozen=True)
class DropsALimit(Pass):
    """Takes the second clip away, which is wrong above six only."""

    name: ClassVar[str] = "drops-a-limit"
    promise: ClassVar[Promise] = Promise.EXACT

    def run(self, module: Module) -> None:
        last = module[0].return_op
        last.operands[0] = module[0].operations[0].results[0]


@dataclass(frozen=True)
class Breaks(Pass):
    """Leaves a module that does not verify, or raises."""

    name: ClassVar[str] = "breaks"
    promise: ClassVar[Promise] = Promise.EXACT

    how: str = "type"

    def run(self, module: Module) -> None:
        if self.how == "raise":
            raise ZeroDivisionError
        if self.how == "make":
            ClipOp.make(module[0].flatten_inputs[0].value, min=2.0, max=1.0)


def test_text_of_a_pipeline_is_read_again() -> None:
    text = convert_pipeline(load_march("nash-e"))
    once = str(Pipeline(text))
    assert str(Pipeline(once)) == once
    assert Pipeline(once).steps == Pipeline(text).steps


def test_options() -> None:
    (step,) = Pipeline("fold-constants{largest=12}").steps
    assert load_pass("fold-constants") is FoldConstants and step == FoldConstants(largest=12)
    assert str(Pipeline([step])) == "fold-constants{largest=12}"
    assert Pipeline("").steps == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cannonicalize", "HB0302: there is no pass 'cannonicalize'.*did you mean canonicalize"),
        ("xyz", "HB0302.*known passes: cancel-transposes"),
        ("fold-constants{largest=many}", "HB0304.*'fold-constants'"),
        ("fold-constants{biggest=1}", "HB0304.*'fold-constants'"),
        ("fold-constants{largest=1", "HB0303"),
        ("a,,b", "HB0303"),
        ("{}", "HB0303"),
    ],
)
def test_bad_text(text: str, message: str) -> None:
    with pytest.raises(PassError, match=message):
        Pipeline(text)


@dataclass(frozen=True)
class PromisesText(Breaks):
    """States its promise as no pass may."""

    name: ClassVar[str] = "promises-text"
    promise: ClassVar[Any] = "EXACT"


@dataclass(frozen=True)
class Nameless(Pass):
    """States no name."""

    promise: ClassVar[Promise] = Promise.EXACT

    def run(self, module: Module) -> None:
        pass


MISUSES: dict[str, tuple[str, Callable[[Module], object]]] = {
    "no pipeline": ("HB0303", lambda m: Pipeline(None)),
    "an unknown name in a list": ("HB0302", lambda m: Pipeline(["dead-cod"])),
    "a number in a list": ("HB0303", lambda m: Pipeline(["dead-code", 3])),
    "a trace that is no path": ("HB0307", lambda m: Pipeline("", trace=3)),
    "print after a text": ("HB0307", lambda m: Pipeline("dead-code", print_after="dead-code")),
    "print after a pass that does not run": ("HB0307", lambda m: Pipeline("dead-code", print_after=["canonicalize"])),
    "a class in place of a pass": ("HB0303", lambda m: Pipeline([load_pass("dead-code")])),
    "an array for the verification": ("HB0307", lambda m: Pipeline("dead-code", verify=np.zeros(2))),
    "another verification": ("HB0307", lambda m: Pipeline("dead-code", verify="all")),
    "an observer that is none": ("HB0307", lambda m: Pipeline("dead-code", observer=3)),
    "a reproducer that is no path": ("HB0307", lambda m: Pipeline("", reproducer=3)),
    "run None": ("HB0236", lambda m: Pipeline("dead-code").run(None)),
    "feeds that are a number": ("HB0307", lambda m: Pipeline("dead-code", feeds=5)),
    "feeds that are one input set": ("HB0307", lambda m: Pipeline("dead-code", feeds={"x": 1})),
    "a text among the feeds": ("HB0307", lambda m: Pipeline("dead-code", feeds=["x"])),
    "a number that names an input": ("HB0307", lambda m: Pipeline("dead-code", feeds=[{0: np.zeros(1)}])),
    "a stream that is a text": ("HB0307", lambda m: Pipeline("dead-code", stream="x")),
    "a text for a switch of printing": ("HB0307", lambda m: Pipeline("dead-code", print_after_change="no")),
    "a number for snapshots": ("HB0307", lambda m: Pipeline("dead-code", snapshots=1)),
    "a promise that is a text": ("HB0308", lambda m: Pipeline([PromisesText()])),
    "a pass without a name": ("HB0308", lambda m: Pipeline([Nameless()])),
    "a text for a number among options": ("HB0304", lambda m: Pipeline([FoldConstants(largest=cast(int, "x"))])),
    "a number for a text among options": ("HB0304", lambda m: Pipeline([Breaks(cast(str, 3))])),
    "a number in a tuple of texts": ("HB0304", lambda m: Pipeline([Options(names=cast(Any, ("a", 1)))])),
    "a text for an option that may be absent": ("HB0304", lambda m: Pipeline([Options(limit=cast(int, "3"))])),
    "load a number": ("HB0302", lambda m: load_pass(3)),
    "convert None": ("HB0236", lambda m: convert(None, "nash-e")),
    "convert for None": ("HB0501", lambda m: convert(m, None)),
    "convert for a number": ("HB0501", lambda m: convert(m, 7)),
    "a text for a switch": ("HB0333", lambda m: convert(m, "nash-e", high_precision_output="no")),
    "a bound below zero": ("HB0304", lambda m: Pipeline("fix-lut{bound=-1}")),
    "a bound that is none": ("HB0304", lambda m: Pipeline("fix-lut{bound=nan}")),
}


@pytest.mark.parametrize("name", MISUSES)
def test_misuse_is_refused_with_a_lever(name: str) -> None:
    code, misuse = MISUSES[name]
    with pytest.raises(HbError) as refusal:
        misuse(Module.parse(NETWORK))
    assert refusal.value.code == code
    assert refusal.value.lever


@pytest.mark.parametrize("brought", [lambda: 1 // 0, lambda: "text", lambda: int])
def test_a_package_whose_pass_cannot_be_loaded_is_told(brought: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "available_passes", lambda: {"theirs": brought})
    with pytest.raises(PassError, match=r"HB0308: pass 'theirs' cannot be loaded"):
        Pipeline("theirs")


def test_input_sets_may_come_one_by_one() -> None:
    module = Module.parse(NETWORK)
    name = module[0].flatten_inputs[0].name
    pipeline = Pipeline([DropsALimit()], verify="exec", feeds=({name: np.full((2, 3), v, np.float32)} for v in (-1, 7)))
    for _ in range(2):
        with pytest.raises(PassError, match="HB0305"):
            pipeline.run(module)


def test_reports_and_observer() -> None:
    seen: list[tuple[str, int]] = []

    def observer(step: Pass, report: PassReport, module: Module) -> None:
        seen.append((step.name, len(module[0].operations)))

    pipeline = Pipeline("canonicalize,dead-code", observer=observer)
    pipeline.run(Module.parse(NETWORK))
    assert seen == [("canonicalize", 1), ("dead-code", 1)]
    assert [(r.name, r.before, r.after) for r in pipeline.reports] == [("canonicalize", 2, 1), ("dead-code", 1, 1)]
    assert all(r.seconds >= 0 for r in pipeline.reports)


def test_reports_count_operations_by_kind_and_keep_snapshots() -> None:
    pipeline = Pipeline(["canonicalize", AddsOne()], snapshots=True)
    result = pipeline.run(Module.parse(NETWORK))
    first, second = pipeline.reports
    assert (dict(first.kinds), dict(second.kinds)) == ({"hbir.clip": -1}, {"hbir.add": 1, "hbir.constant": 1})
    assert first.module and [op.name for op in first.module[0].operations] == ["hbir.clip"]
    assert str(second.module) == str(result) and second.module is not result
    assert str(second).endswith("ms, 1 -> 3 operations, hbir.add +1, hbir.constant +1")
    pipeline = Pipeline("canonicalize")
    pipeline.run(Module.parse(NETWORK))
    assert pipeline.reports[0].module is None


def test_modules_are_printed_after_passes() -> None:
    def printed(**options: Any) -> str:
        stream = StringIO()
        Pipeline("dead-code,canonicalize,dead-code", stream=stream, **options).run(Module.parse(NETWORK))
        return stream.getvalue()

    assert printed() == ""
    assert re.findall("// ----- .* -----", printed(print_after_change=True)) == [
        "// ----- after dead-code: no change -----",
        "// ----- after canonicalize: 2 -> 1 operations -----",
        "// ----- after dead-code: no change -----",
    ]
    assert printed(print_after=True).count('"builtin.module"') == 3
    assert printed(print_after=["dead-code"]).count('"builtin.module"') == 2
    assert "after canonicalize" not in printed(print_after=["dead-code"])


def test_exec_runs_on_the_inputs_that_are_given() -> None:
    """On inputs below zero both clips give zero: what differs above six is not seen."""
    module = Module.parse(NETWORK)
    below, above = ({module[0].flatten_inputs[0].name: np.full((2, 3), value, np.float32)} for value in (-1.0, 7.0))
    drops_the_limit = Pipeline([DropsALimit()], verify="exec", feeds=[below])
    drops_the_limit.run(module)
    with pytest.raises(PassError, match="HB0305.*by 1"):
        Pipeline([DropsALimit()], verify="exec", feeds=[below, above]).run(module)
    with pytest.raises(IrError, match="HB0232"):
        Pipeline([DropsALimit()], verify="exec", feeds=[{"y": np.ones((2, 3), np.float32)}]).run(module)


def test_a_broken_promise_is_found() -> None:
    module = Module.parse(NETWORK)
    Pipeline([AddsOne()]).run(module)
    with pytest.raises(PassError, match=r"HB0305.*'adds-one' changed output '_output_0' by 1; it promises EXACT"):
        Pipeline([AddsOne()], verify="exec").run(module)
    Pipeline([AddsOne(0.0)], verify="exec").run(module)


def test_a_reproducer_reproduces(tmp_path: Path) -> None:
    steps = [*Pipeline("canonicalize").steps, AddsOne(2.0), *Pipeline("dead-code").steps]
    with pytest.raises(PassError):
        Pipeline(steps, verify="exec", reproducer=tmp_path / "r").run(Module.parse(NETWORK))
    command = (tmp_path / "r" / "command.txt").read_text()
    assert command == "hbir-opt module.bc -p 'adds-one{amount=2.0},dead-code' --verify exec --feeds inputs.npz\n"
    assert (tmp_path / "r" / "error.txt").read_text().startswith("PassError: HB0305")
    again, feed = load(tmp_path / "r" / "module.bc"), read_feed(tmp_path / "r" / "inputs.npz")
    assert [op.name for op in again[0].operations] == ["hbir.clip"]  # as it was before the pass that failed
    with pytest.raises(PassError, match="HB0305"):
        Pipeline(steps[1:], verify="exec", feeds=[feed]).run(again)


def test_no_input_sets_are_generated_ones() -> None:
    with pytest.raises(PassError, match="HB0305"):
        Pipeline([AddsOne()], verify="exec", feeds=[]).run(Module.parse(NETWORK))


def test_options_take_numbers_of_numpy_and_whole_numbers_for_floats() -> None:
    assert Pipeline([Options(1, limit=cast(int, np.int64(2))), Options(float(np.float32(0.5)), ("a",), None)])


def test_a_pass_that_fails_by_itself_leaves_a_reproducer_too(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        Pipeline([Breaks("raise")], reproducer=tmp_path / "r").run(Module.parse(NETWORK))
    assert load(tmp_path / "r" / "module.bc")
    with pytest.raises(PassError, match="HB0306.*'breaks' cannot build.*wrong way round"):
        Pipeline([Breaks("make")]).run(Module.parse(NETWORK))


@dataclass(frozen=True)
class Options(Pass):
    """Does nothing, with options of every kind."""

    name: ClassVar[str] = "options"
    promise: ClassVar[Promise] = Promise.EXACT

    share: float = 0.5
    names: tuple[str, ...] = ()
    limit: int | None = 3
    table: Mapping[object, object] = field(default_factory=dict[object, object])

    def run(self, module: Module) -> None:
        pass


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (Options(), "options"),
        (Options(1e-7), "options{share=1.0e-07}"),
        (Options(-2.5e30, limit=None), "options{share=-2.5e+30 limit}"),
        (Options(names=("a b", "c")), 'options{names="a b","c"}'),
        (Options(table={("g", 0): None}), "options{table=<dict>}"),
    ],
)
def test_text_of_a_pass(step: Options, text: str, tmp_path: Path) -> None:
    assert pass_text(step) == text
    pipeline = Pipeline([step], trace=tmp_path / "trace.html")
    pipeline.run(Module.parse(NETWORK))
    assert str(pipeline) == text
    if not step.table:
        assert Options.from_spec(next(iter(parse_pipeline(text)))) == step


def test_spaces_behind_commas() -> None:
    assert Pipeline(" canonicalize,  dead-code ").steps == Pipeline("canonicalize,dead-code").steps


def test_the_reproducer_has_the_inputs_on_which_it_fails(tmp_path: Path) -> None:
    module = Module.parse(NETWORK)
    name = module[0].flatten_inputs[0].name
    below, above = ({name: np.full((2, 3), value, np.float32)} for value in (-1.0, 7.0))
    with pytest.raises(PassError, match="HB0305"):
        Pipeline([DropsALimit()], verify="exec", feeds=[below, above], reproducer=tmp_path).run(module)
    assert (read_feed(tmp_path / "inputs.npz")[name] == 7.0).all()
    assert "hbir-opt does not know 'drops-a-limit'" in (tmp_path / "error.txt").read_text()


def test_generated_inputs_reach_the_limits() -> None:
    with pytest.raises(PassError, match="HB0305"):
        Pipeline([DropsALimit()], verify="exec").run(Module.parse(NETWORK))


def _refuse(*_: object) -> None:
    raise ValueError("the user's own")


class Closed(StringIO):
    """A stream that takes nothing."""

    def write(self, text: str, /) -> int:
        raise ValueError("the user's own")


@pytest.mark.parametrize(
    "options", [{"observer": _refuse}, {"stream": Closed(), "print_after": True}], ids=["observer", "stream"]
)
def test_what_watches_the_passes_leaves_a_reproducer_too(options: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the user's own") as caught:
        Pipeline("canonicalize,dead-code", reproducer=tmp_path / "r", trace=tmp_path / "t.html", **options).run(
            Module.parse(NETWORK)
        )
    assert not hasattr(caught.value, "__notes__") and (tmp_path / "t.html").is_file()
    folder = tmp_path / "r"
    assert (folder / "command.txt").read_text() == (
        "hbir-opt module.bc -p canonicalize,dead-code --verify structure --feeds inputs.npz\n"
    )
    told = (folder / "error.txt").read_text()
    assert told.startswith("ValueError: the user's own\npass 'canonicalize' ran; what failed is an observer")
    assert len(load(folder / "module.bc")[0].operations) == 2 and read_feed(folder / "inputs.npz")


def test_a_trace_that_fails_leaves_a_reproducer_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HbError, match="HB0801"):
        Pipeline("dead-code", reproducer=tmp_path / "r", trace=tmp_path / "file" / "t").run(Module.parse(NETWORK))
    assert "--trace trace.html" in (tmp_path / "r" / "command.txt").read_text()
    monkeypatch.setattr(Trace, "add", _refuse)
    with pytest.raises(ValueError):
        Pipeline("canonicalize,dead-code", reproducer=tmp_path / "s", trace=tmp_path / "t").run(Module.parse(NETWORK))
    assert "-p canonicalize,dead-code" in (tmp_path / "s" / "command.txt").read_text()
    with pytest.raises(HbError, match="HB0801"):
        Pipeline("", reproducer=tmp_path / "e", trace=tmp_path / "file" / "t").run(Module.parse(NETWORK))
    assert load(tmp_path / "e" / "module.bc")


def test_a_module_that_an_observer_changed_is_reproduced_from_the_start(tmp_path: Path) -> None:
    """The passes before the failing one cannot be run again: only the observer made them do."""

    def observer(step: Pass, report: PassReport, module: Module) -> None:
        if step.name == "canonicalize":
            raise ValueError
        seen.append(step)

    @dataclass(frozen=True)
    class Once(Options):
        """Runs once."""

        name: ClassVar[str] = "once"

        def run(self, module: Module) -> None:
            if seen:
                raise ZeroDivisionError

    seen: list[Pass] = []
    with pytest.raises(ValueError):
        Pipeline([Once(), "canonicalize"], observer=observer, reproducer=tmp_path).run(Module.parse(NETWORK))
    assert "-p once,canonicalize" in (tmp_path / "command.txt").read_text()


def test_options_without_a_text_are_told_in_the_reproducer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "available_passes", lambda: {"options": lambda: Options, "breaks": lambda: Breaks})
    steps = [Breaks("raise"), Options(table={1: 2})]
    with pytest.raises(ZeroDivisionError):
        Pipeline(steps, reproducer=tmp_path).run(Module.parse(NETWORK))
    assert (tmp_path / "error.txt").read_text().splitlines()[1:] == [
        "options of 'options' have no text: build the pipeline in Python"
    ]


def test_notes_stay_with_the_error_that_is_raised(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PassError, match="HB0306") as caught:
        Pipeline([Breaks("make")], reproducer=tmp_path / "file" / "r").run(Module.parse(NETWORK))
    assert "there is no reproducer: HB0801" in caught.value.__notes__[0]


def test_what_cannot_be_written_does_not_hide_the_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for options in ({"reproducer": tmp_path / "file" / "r"}, {"trace": tmp_path / "file" / "t.html"}):
        with pytest.raises(ZeroDivisionError) as caught:
            Pipeline([Breaks("raise")], **options).run(Module.parse(NETWORK))
        assert "HB0801" in caught.value.__notes__[0]


@dataclass(frozen=True)
class Spoils(Pass):
    """Leaves what no pass may leave."""

    name: ClassVar[str] = "spoils"
    promise: ClassVar[Promise] = Promise.NUMERIC

    how: str = "nan"

    def run(self, module: Module) -> None:
        if self.how == "nan":
            AddsOne(float("nan")).run(module)
        else:
            module[0].op.detach()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("nan", "HB0305.*'spoils' changed output '_output_0' by inf"),
        ("function", "HB0305.*'spoils' changed the functions"),
    ],
)
def test_exec_asks_every_pass_for_the_same_functions_and_finite_values(how: str, said: str) -> None:
    with pytest.raises(PassError, match=said):
        Pipeline([Spoils(how)], verify="exec").run(Module.parse(NETWORK))


@dataclass(frozen=True)
class Swaps(Pass):
    """Moves the first operation behind the one that reads it."""

    name: ClassVar[str] = "swaps"
    promise: ClassVar[Promise] = Promise.EXACT

    def run(self, module: Module) -> None:
        first, second = module[0].operations
        first.detach()
        module[0].op.body.block.insert_op_after(first, second)


def test_a_module_that_does_not_verify_names_the_pass() -> None:
    with pytest.raises(PassError, match="HB0306.*'swaps' left a module that does not verify; HB0203"):
        Pipeline([Swaps()]).run(Module.parse(NETWORK))
