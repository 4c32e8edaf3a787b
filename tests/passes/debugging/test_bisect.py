"""`bisect`: which stage, which operation, which element; stages that raise, that change outputs, that are no passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import pytest
from xdsl.dialects.builtin import f32

from hbir import export
from hbir.dialects.hbir import BinaryOp, ClipOp, ConstantOp, Conv2dOp, FunctionOp, TransposeOp, constant
from hbir.errors import PassError
from hbir.ir.constants import ConstantStore
from hbir.ir.locations import layer_name
from hbir.module import Module
from hbir.testing import Seeded, generate
from hbir.testing.graphs import SeededGraph
from passes import Pass, Promise
from passes.calibrate import FLOAT_PIPELINE
from passes.common.rewriting import insert_before, replace
from passes.debugging.bisect import Bisection, Fault, Stage, bisect
from passes.debugging.equivalence import Feeds, generated_inputs
from passes.debugging.stages import as_stages, judge

TINY = "tests/data/tiny.onnx"


@dataclass(frozen=True)
class LooseClip(Pass):
    """Forgets the bound of a clip that reads a convolution."""

    name: ClassVar[str] = "loose-clip"
    promise: ClassVar[Promise] = Promise.EXACT

    def run(self, module: Module) -> None:
        for op in module[0].operations:
            if isinstance(op, ClipOp) and not isinstance(op.input.owner, TransposeOp):
                replace(op, [insert_before(op, ClipOp.make(op.input, min=-0.5, max=None), [op]).output])


@dataclass(frozen=True)
class Scale(Pass):
    """Makes the weights of one layer larger."""

    name: ClassVar[str] = "scale"
    promise: ClassVar[Promise] = Promise.NUMERIC

    by: float = 1.2
    layer: str = "block"

    def run(self, module: Module) -> None:
        for op in module[0].operations:
            if isinstance(op, Conv2dOp) and self.layer in layer_name(op) and isinstance(op.weight.owner, ConstantOp):
                weights = op.weight.owner.array(module.constants) * np.float32(self.by)
                made = constant(weights, module.constants, cast(Any, op.weight.type).element_type)
                op.operands[1] = insert_before(op, made, [op]).output


@dataclass(frozen=True)
class Raises(Pass):
    """Fails on sums, as a fault in the pass or as an error for the user, or leaves what does not verify."""

    name: ClassVar[str] = "raises"
    promise: ClassVar[Promise] = Promise.EXACT

    how: str = "fault"

    def run(self, module: Module) -> None:
        for op in module[0].operations:
            if isinstance(op, BinaryOp) and op.name == "hbir.add":
                if self.how == "fault":
                    raise AttributeError("'NoneType' object has no attribute 'owner'")
                if self.how == "refusal":
                    raise PassError(23, "no table", where=f"layer '{layer_name(op)}'")
                if self.how == "invalid":
                    op.detach()
                    module[0].op.body.block.insert_op_before(op, module[0].operations[0])
                if self.how == "name":
                    module[0].flatten_outputs[0].name = "other"


def fault_of(found: Bisection) -> Fault:
    assert found.fault is not None
    return found.fault


def test_a_right_pipeline_has_no_fault() -> None:
    found = bisect(export(TINY), FLOAT_PIPELINE)
    assert found.fault is None and len(found.judged) == FLOAT_PIPELINE.count(",") + 1
    assert all(not each.failed and each.difference <= each.allowed for each in found.judged)
    assert {each.allowed for each in found.judged} == {0.0, 1e-4, 0.25}


def test_the_pass_the_operation_and_the_element() -> None:
    module = export(TINY)
    text = str(module)
    said: list[str] = []
    steps = ["canonicalize,cancel-transposes", LooseClip(), "dead-code"]
    found = bisect(module, steps, progress=lambda what, share: said.append(what))
    fault = fault_of(found)
    assert (fault.stage, fault.number, fault.promise) == ("loose-clip", 2, Promise.EXACT)
    assert (fault.layer, fault.operation, fault.made) == ("stem_relu", "hbir.clip", "hbir.clip")
    assert fault.layers == ["stem_relu"] and len(fault.case[0].operations) == 1
    assert [each.stage for each in found.judged] == ["canonicalize", "cancel-transposes", "loose-clip"]
    assert fault.element is not None and fault.element.expected == 0 and fault.element.actual == -0.5
    # The input of the case is what the whole network has there, and the element is the one to look at.
    (x,) = fault.feeds[0].values()
    assert x[fault.element.index] <= -0.5
    assert fault.case[0].feed(fault.feeds[0])[fault.element.output][fault.element.index] == 0
    assert "loose-clip" in said and said[-1].startswith("1 operations after")
    assert str(module) == text and "dead-code" not in said
    again = fault_of(bisect(fault.case, [LooseClip()], fault.feeds))
    assert again.element == fault.element and str(again.case) == str(fault.case)


def test_rounding_is_judged_by_its_tolerance() -> None:
    module = export(TINY)
    assert bisect(module, [Scale(by=1.001)]).fault is None
    row = bisect(module, [Scale(by=1.001)]).judged[0]
    assert 0 < row.difference < 0.25 == row.allowed
    fault = fault_of(bisect(module, [Scale(by=1.001), Scale(by=1.5)], tolerance=0.02))
    assert fault.number == 1 and fault.stage == "scale{by=1.5}" and fault.layer == "block"
    assert fault.operation == fault.made == "hbir.conv2d"
    fault = fault_of(bisect(module, [Scale(by=1.001)], tolerances={"scale": 0.0}))
    assert fault.element is not None and fault.element.expected != fault.element.actual


@pytest.mark.parametrize(
    ("how", "told"),
    [("fault", "NoneType"), ("refusal", "HB0323"), ("invalid", "HB0203"), ("name", "became ['other']")],
)
def test_what_raises_or_changes_outputs_is_a_fault_without_an_element(how: str, told: str) -> None:
    fault = fault_of(bisect(export(TINY), [Raises(how=how)]))
    assert told in fault.what and fault.element is None
    assert fault.layer == "block_add" and fault.operation == "hbir.add"
    assert len(fault.layers) <= 2


def test_nan_is_never_within_a_tolerance() -> None:
    fault = fault_of(bisect(export(TINY), [Scale(by=float("nan"))], tolerance=1e9))
    assert fault.element is not None and np.isnan(fault.element.actual) and np.isfinite(fault.element.expected)


def test_a_fault_that_shows_on_some_inputs_only() -> None:
    module = export(TINY)
    dark = {"x": np.zeros((1, 3, 16, 16), np.float32)}
    bright = {"x": np.full((1, 3, 16, 16), 3, np.float32)}

    def run(given: Module, feeds: Feeds) -> Module:
        """Like a calibration: what it makes depends on all the inputs it is given."""
        work = given.clone()
        Scale(by=1.5 if len(feeds) == 2 else 1.0).run(work)
        return work

    found = bisect(module, [Stage("learn", Promise.NUMERIC, run)], [dark, bright], tolerance=0.01)
    fault = fault_of(found)
    assert len(fault.feeds) == 2 and fault.layer == "block"
    assert bisect(module, [Stage("learn", Promise.NUMERIC, run)], [bright], tolerance=0.01).fault is None


def test_a_stage_may_end_in_something_that_runs() -> None:
    class Doubled:
        """Runs a module, and doubles a number of what comes out."""

        def __init__(self, module: Module) -> None:
            self.module = module
            self.name = module[0].name

        def __iter__(self) -> Any:
            return iter([self])

        def feed(self, inputs: Any) -> Any:
            found = self.module[0].feed(inputs)
            if any(op.name == "hbir.linear" for op in self.module[0].operations):
                for array in found.values():
                    array.reshape(-1)[-1] *= 2
            return found

    fault = fault_of(bisect(export(TINY), ["dead-code", Stage("run", Promise.EXACT, lambda m, feeds: Doubled(m))]))
    assert (fault.stage, fault.layer, fault.operation, fault.made) == ("run", "classifier", "hbir.linear", "")
    assert fault.element is not None and fault.element.index == (0, 4)


def test_arguments_are_checked() -> None:
    module = export(TINY)
    for arguments, code in (
        ({"tolerance": -1}, "HB0352"),
        ({"tolerance": "low"}, "HB0352"),
        ({"tolerances": {"scale": float("nan")}}, "HB0352"),
    ):
        with pytest.raises(PassError) as told:
            bisect(module, [Scale()], **cast(Any, arguments))
        assert told.value.code == code
    for stages in ("no-such-pass", 5, [5]):
        with pytest.raises(PassError):
            bisect(module, cast(Any, stages))


def test_a_judge_knows_results_that_are_given() -> None:
    module = export(TINY)
    feed = generated_inputs(module[0])
    (stage,) = as_stages("cancel-transposes")
    inputs = {module[0].name: [feed]}
    verdict = judge(stage, module, inputs, 0.0)
    assert not verdict.kind and verdict.results is not None
    wrong = {name: [{"y": outputs["y"] + 1} for outputs in rows] for name, rows in verdict.results.items()}
    assert judge(stage, module, inputs, 0.0, wrong).kind == "values"
    same = Stage("same", Promise.EXACT, lambda given, feeds: given)
    assert not judge(same, module, inputs, 0.0, wrong).kind, "what is the same is not run"


@dataclass(frozen=True)
class Coarse(Pass):
    """Rounds the weights of convolutions to eight bits, and turns those of one layer round."""

    name: ClassVar[str] = "coarse"
    promise: ClassVar[Promise] = Promise.NUMERIC

    turned: str = ""

    def run(self, module: Module) -> None:
        for op in module[0].operations:
            if isinstance(op, Conv2dOp) and isinstance(op.weight.owner, ConstantOp):
                array = op.weight.owner.array(module.constants)
                step = np.abs(array).max() / 127
                rounded = (np.round(array / step) * step).astype(np.float32)
                if self.turned and self.turned in layer_name(op):
                    rounded = -rounded
                made = constant(rounded, module.constants, cast(Any, op.weight.type).element_type)
                op.operands[1] = insert_before(op, made, [op]).output


def test_rounding_beside_a_small_difference_is_not_blamed() -> None:
    """Two convolutions that nearly cancel: what eight bits change is much of their difference, and little of the network."""
    rng = np.random.default_rng(0)
    shape = "tensor<1x6x6x4xf32>"
    store = ConstantStore()

    def weight(array: np.ndarray[Any, Any]) -> str:
        blob = store.put(array.astype(np.float32))
        return f'#hbir.blob<"{blob.digest.data}", {blob.size.data}>'

    near = rng.standard_normal((4, 1, 1, 4))
    weights = {"a": near, "b": near + 0.003 * rng.standard_normal(near.shape), "last": rng.standard_normal(near.shape)}
    lines: list[str] = []

    def conv(result: str, operand: str, name: str) -> None:
        value = f"{{value = {weight(weights[name])}}}"
        lines.append(f'%w{name} = "hbir.constant"() <{value}> : () -> tensor<4x1x1x4xf32> loc("{name}")')
        lines.append(
            f'{result} = "hbir.conv2d"({operand}, %w{name}) <{{stride = array<i64: 1, 1>, pad = array<i64: 0, 0, 0, 0>, '
            "dilation = array<i64: 1, 1>, groups = 1 : i64, operandSegmentSizes = array<i32: 1, 1, 0, 0>}> : "
            f'({shape}, tensor<4x1x1x4xf32>) -> {shape} loc("{name}")'
        )

    conv("%p", "%x", "a")
    conv("%q", "%x", "b")
    lines.append(f'%d = "hbir.sub"(%p, %q) : ({shape}, {shape}) -> {shape} loc("cancel")')
    lines.append(f'%j = "hbir.add"(%x, %d) : ({shape}, {shape}) -> {shape} loc("join")')
    conv("%y", "%j", "last")
    body = "\n".join(lines)
    module = Module.parse(
        f""""builtin.module"() ({{ "func.func"() <{{sym_name = "main", function_type = ({shape}) -> {shape}}}> ({{
        ^bb0(%x: {shape}):
        {body}
        "func.return"(%y) : ({shape}) -> () }}) : () -> () }}) : () -> ()""",
        store,
    )
    assert bisect(module, [Coarse()]).fault is None
    fault = bisect(module, [Coarse("last")]).fault
    assert fault is not None and fault.layer == "last" and "cancel" not in fault.layers


def test_a_tolerance_for_no_stage_is_refused() -> None:
    with pytest.raises(PassError, match="HB0352: there is a tolerance for 'fold-batch-nrom'.*fold-batch-norm"):
        bisect(export(TINY), "fold-batch-norm", tolerances={"fold-batch-nrom": 0.0})


@dataclass(frozen=True)
class Tanh(Pass):
    """Takes sigmoid for tanh."""

    name: ClassVar[str] = "tanh"
    promise: ClassVar[Promise] = Promise.NUMERIC

    def run(self, module: Module) -> None:
        for op in module[0].operations:
            if isinstance(op, FunctionOp) and op.values["function"] == "sigmoid":
                replace(
                    op, [insert_before(op, FunctionOp.make(op.input, function="tanh", parameters=None), [op]).output]
                )


@pytest.mark.parametrize("size", [1.0, 100.0])
def test_outputs_that_are_small_beside_their_inputs(size: float) -> None:
    """A sigmoid of pixels is off by 0.5 where its inputs reach to 255: that is half of its own largest value."""
    graph = SeededGraph(Seeded(3))
    x = graph.input((1, 8), f32)
    graph.add(FunctionOp.make(graph.add(ClipOp.make(x, min=-9.0, max=9.0)), function="sigmoid", parameters=None))
    feeds = [{"in_0": np.linspace(-size, size, 8, dtype=np.float32).reshape(1, 8)}]
    fault = fault_of(bisect(graph.finish(), [Tanh()], feeds))
    assert fault.operation == "hbir.function" and len(fault.layers) == 1


def test_a_stage_that_fails_has_a_fault_whatever_the_module() -> None:
    found = [bisect(generate(Seeded(seed), ("hbir",), 12), [Tanh()]).fault for seed in range(110)]
    named = [fault for fault in found if fault is not None]
    assert len(named) > 3 and all(fault.case[0].operations for fault in named)
