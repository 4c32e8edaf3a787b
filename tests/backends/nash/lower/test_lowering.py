"""Every operation finds its unit or the host, moves that need no work are none, and the numbers stay the interpreter's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from xdsl.ir import Operation

from backends.nash.isa import BY_NAME
from backends.nash.lower import Node, Storage, TensorView, UnitGraph, lower
from backends.nash.lower.lowering import supported_operations
from backends.nash.lower.views import reshaped
from hbir.dialects import hbir as float_dialect
from hbir.dialects import quantized as integer_dialect
from hbir.dialects.base import HbOperation
from hbir.dialects.quant import UniformQuantizedType
from hbir.errors import BackendError
from hbir.march import load_march
from hbir.numerics import quantize_multiplier
from hbir.testing import Seeded, example_feeds
from hbir.testing.graphs import SeededGraph
from passes import convert
from tests.backends.nash.small_networks import HOST_NETWORKS, SMALL_NETWORKS, small_network, text_network
from tests.compiled import assert_equal_outputs, compiled

MARCH = load_march("nash-e")


def graph_of(name: str) -> UnitGraph:
    return lower(small_network(name)[0], MARCH)


def copies(graph: UnitGraph) -> int:
    """How many copies the lowering added; transposes of the model's own NCHW inputs and outputs are not counted."""
    return sum(node.opcode == "COPY" and node.operation != "hbir.transpose" for node in graph.nodes)


@pytest.mark.parametrize(
    ("march", "size", "cores"), [("nash-e", 4 << 20, 1), ("nash-m", 10240, 1), ("nash-p", 10240, 3)]
)
@pytest.mark.parametrize("name", [*SMALL_NETWORKS, *HOST_NETWORKS])
def test_the_binary_gives_the_interpreters_numbers(name: str, march: str, size: int, cores: int) -> None:
    module, feeds = small_network(name, march)
    binary = compiled(module, replace(load_march(march), l1m_bytes=size), opt=1, core_num=cores)
    assert_equal_outputs(module, binary, feeds)
    assert_equal_outputs(module, binary, feeds[:1], check=True)


@pytest.mark.parametrize("name", list(SMALL_NETWORKS))
def test_nothing_but_float_work_goes_to_the_host(name: str) -> None:
    graph = graph_of(name)
    assert [node.reason for node in graph.nodes if node.unit == "HOST"] == []
    assert graph.host_text == ""
    for node in graph.nodes:
        assert node.unit == BY_NAME[node.opcode].unit
        assert {*node.reads, *node.writes, *node.constants} <= {o.name for o in BY_NAME[node.opcode].operands}
        assert set(node.params) <= {p.name for p in BY_NAME[node.opcode].params}
        assert node.layer
    assert graph.name in str(graph)


def test_every_quantized_operation_has_a_lowering() -> None:
    """`quantized.function` is a placeholder that `fix-lut` replaces."""
    classes = [
        c
        for c in vars(integer_dialect).values()
        if isinstance(c, type) and issubclass(c, HbOperation) and hasattr(c, "name")
    ]
    missing = {c.name for c in classes} - {c.name for c in supported_operations()} - {"quantized.function"}
    assert classes
    assert missing == set()


def test_moves_of_any_float_operation_are_lowered_too() -> None:
    moves: list[type[Operation]] = [
        float_dialect.ReshapeOp,
        float_dialect.TransposeOp,
        float_dialect.ConcatOp,
        float_dialect.SliceOp,
        float_dialect.PadOp,
        float_dialect.ExpandOp,
    ]
    assert set(moves) <= set(supported_operations())


@pytest.mark.parametrize("name", ["concat", "nested_concat"])
def test_producers_write_into_concatenations(name: str) -> None:
    graph = graph_of(name)
    convs = [node for node in graph.nodes if node.opcode == "CONV"]
    shared = Counter(node.out.storage for node in convs)
    assert max(shared.values()) >= 2
    assert copies(graph) == 0


def test_slices_and_reshapes_read_where_their_operand_lies() -> None:
    assert copies(graph_of("split")) == 0
    assert copies(graph_of("classifier")) == 0


def test_rows_with_gaps_are_copied_for_compute_units() -> None:
    graph = graph_of("strided_slice")
    assert copies(graph) == 1
    for node in graph.nodes:
        if node.unit not in ("TRANS", "HOST"):
            assert all(view.has_dense_rows for view in (*node.reads.values(), *node.writes.values()))


def test_macs_are_those_of_the_layers() -> None:
    graph = graph_of("chain")
    assert [node.macs for node in graph.nodes if node.opcode == "CONV"] == [12 * 10 * 8 * 8 * 9] * 2
    assert next(n for n in graph_of("depthwise").nodes if n.opcode == "CONV").macs == 12 * 10 * 8 * 9


@pytest.mark.parametrize("name", list(HOST_NETWORKS))
def test_host_operations_say_why_and_lie_in_ddr(name: str) -> None:
    graph = graph_of(name)
    (call,) = [node for node in graph.nodes if node.opcode == "HOST_CALL"]
    assert call.operation == HOST_NETWORKS[name][2]
    assert call.reason == f"{call.operation} has no integer form"
    assert all(graph.storages[view.storage].pinned for view in (*call.reads.values(), *call.writes.values()))
    assert call.operation in graph.host_text


def test_a_stride_beyond_the_march_goes_to_the_host_with_the_limit() -> None:
    module, feeds = small_network("stride")
    march = replace(MARCH, max_stride=1)
    graph = lower(module, march)
    (reason,) = [node.reason for node in graph.nodes if node.opcode == "HOST_CALL"]
    assert reason == f"the tensor engine takes strides up to 1 and pads up to {MARCH.max_pad}"
    binary = compiled(module, march, opt=1)
    assert_equal_outputs(module, binary, feeds, check=True)


def test_what_the_host_works_on_lies_in_ddr_under_any_other_name_too() -> None:
    body = (
        "a = Conv (x, w1) r = Reshape (a, rows) s = Relu (r) q = Reshape (s, image) c = Conv <strides = [2,2]> (q, w1)"
        " d = Concat <axis = 1> (c, c) t = Slice (d, begin, end, channels) y = Conv <strides = [2,2]> (t, u1)"
    )
    calibrated, feeds = text_network(body, "(float[1,8,12,10] x) => (float[1,8,3,3] y)")
    module = convert(calibrated, "nash-e")
    march = replace(MARCH, max_stride=1)
    graph = lower(module, march)
    calls = [node for node in graph.nodes if node.opcode == "HOST_CALL"]
    assert len(calls) == 2
    for call in calls:
        assert all(graph.storages[view.storage].pinned for view in (*call.reads.values(), *call.writes.values()))
    assert_equal_outputs(module, compiled(module, march, opt=1), feeds, check=True)


def test_a_float_module_is_refused() -> None:
    calibrated, _ = text_network(*SMALL_NETWORKS["chain"])
    with pytest.raises(BackendError) as refusal:
        lower(calibrated, MARCH)
    assert refusal.value.code == "HB0515"
    assert "passes.convert" in str(refusal.value)
    assert lower(convert(calibrated, "nash-e"), MARCH).nodes


def test_more_axes_than_an_instruction_has_are_refused_with_the_layer() -> None:
    shape = "float[2,1,2,1,2,1,2]"
    module, _ = text_network("r = Relu (x) y = Mul (r, r)", f"({shape} x) => ({shape} y)")
    with pytest.raises(BackendError, match="HB0517.*layer.*7 axes"):
        lower(convert(module, "nash-e"), MARCH)


def test_a_constant_without_axes_is_an_output() -> None:
    signature = "(float[1,8,12,10] x) => (float[1,8,12,10] y, float z)"
    calibrated, feeds = text_network("a = Conv (x, w1) y = Relu (a) z = Constant <value_float = 2.0> ()", signature)
    module = convert(calibrated, "nash-e")
    assert_equal_outputs(module, compiled(module, opt=1), feeds, check=True)


def test_a_network_that_only_moves_values_runs() -> None:
    calibrated, feeds = text_network(
        "y = Transpose <perm = [0, 2, 3, 1]> (x)", "(float[1,8,12,10] x) => (float[1,12,10,8] y)"
    )
    module = convert(calibrated, "nash-e")
    assert_equal_outputs(module, compiled(module, opt=1), feeds, check=True)


def view(storage: int, shape: tuple[int, ...], offset: int = 0) -> TensorView:
    return TensorView.dense(storage, shape, "i8", offset)


def one_node(read: TensorView, write: TensorView) -> UnitGraph:
    node = Node("CLAMP", "VAE", "somewhere", {"x": read}, {"out": write}, {})
    return UnitGraph("g", (Storage(64, "input", "x"), Storage(64, "activation")), (node,), (("x", view(0, (64,))),), ())


def test_views_stay_inside_their_storages() -> None:
    one_node(view(0, (64,)), view(1, (64,))).verify()
    for read, write in [
        (view(0, (65,)), view(1, (64,))),
        (view(0, (64,)), view(1, (64,), 1)),
        (view(0, (4,), -1), view(1, (64,))),
    ]:
        with pytest.raises(BackendError, match="leaves its storage") as refusal:
            one_node(read, write).verify()
        assert refusal.value.code == "HB0511"
        assert "somewhere" in str(refusal.value)


def test_nothing_is_read_before_it_is_written() -> None:
    with pytest.raises(BackendError, match="read before"):
        one_node(view(1, (64,)), view(1, (64,))).verify()


def test_dense_views_take_other_shapes_and_others_do_not() -> None:
    dense = view(0, (4, 6))
    assert reshaped(dense, (2, 12)) == view(0, (2, 12))
    assert reshaped(dense.part((0, 0), (4, 3)), (12,)) is None
    assert reshaped(dense.part((1, 0), (2, 6)), (12,)) == view(0, (12,), 6)


def test_strides_of_single_elements_do_not_matter() -> None:
    a = TensorView(0, 0, (1, 8), (999, 1), "i8")
    assert a.is_dense
    assert a.same_bytes(view(0, (1, 8)))
    assert not a.same_bytes(view(0, (1, 8), 1))
    assert not a.same_bytes(TensorView(0, 0, (1, 8), (8, 2), "i8"))


def test_results_do_not_depend_on_the_order_of_runs() -> None:
    module, feeds = small_network("residual")
    function = compiled(module, opt=0)[0]
    first = [function.feed(feed)["y"] for feed in feeds]
    second = [function.feed(feed)["y"] for feed in reversed(feeds)][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def _run_both(build: Callable[[SeededGraph], object], l1m_bytes: int = MARCH.l1m_bytes) -> UnitGraph:
    """Interpreter and binary of a small graph agree; how it was lowered."""
    graph = SeededGraph(Seeded(0, []))
    build(graph)
    module, march = graph.finish(), replace(MARCH, l1m_bytes=l1m_bytes)
    module.march = march.name
    feeds = [example_feeds(module[0], seed) for seed in range(3)]
    assert_equal_outputs(module, compiled(module, march, opt=1), feeds)
    assert_equal_outputs(module, compiled(module, march, opt=1), feeds[:1], check=True)
    return lower(module, march)


I8, I16 = UniformQuantizedType.get(8, 0.05, 3), UniformQuantizedType.get(16, 0.001)
MULTIPLIED = {"multiplier": np.array([20971], np.int32), "shift": np.array([20], np.int8)}


def test_a_reduction_of_no_axes_is_a_rescale_or_a_copy() -> None:
    clamp = {"low": -100, "high": 127, "grid": UniformQuantizedType.get(8, 0.1, -5)}
    half = {"multiplier": np.array([16385], np.int32), "shift": np.array([15], np.int8)}

    def build(g: SeededGraph) -> None:
        x = g.input((2, 3), I8)
        g.add(integer_dialect.ReduceSumOp.make(x, axes=[], keep=False, count=1, **half, **clamp))
        g.add(float_dialect.ReduceOp.make(x, kind="max", axes=[], keep=True))

    assert {node.opcode for node in _run_both(build).nodes} == {"RESCALE", "COPY"}


def test_argmax_that_keeps_its_axis() -> None:
    def build(g: SeededGraph) -> None:
        x = g.input((3, 5, 2), I8)
        for axis in range(3):
            g.add(float_dialect.ArgmaxOp.make(x, axis=axis, keep=True))

    assert [node.opcode for node in _run_both(build).nodes] == ["ARGMAX"] * 3


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize(("left", "right"), [(I8, I16), (I16, I8)])
def test_matrices_of_two_widths_are_widened(
    left: UniformQuantizedType, right: UniformQuantizedType, constant: bool
) -> None:
    def build(g: SeededGraph) -> None:
        dtype = np.int8 if right.bits == 8 else np.int16
        codes = np.arange(-10, 10, dtype=dtype).reshape(5, 4) * 6
        b = g.constant(codes, right) if constant else g.input((5, 4), right)
        grid = UniformQuantizedType.get(16, 0.0025)
        limits = {"low": -32768, "high": 32767, "grid": grid}
        g.add(integer_dialect.MatmulOp.make(g.input((3, 5), left), b, **MULTIPLIED, **limits))

    graph = _run_both(build)
    assert graph.nodes[-1].opcode == "MATMUL" and not graph.host_text


def test_a_constant_matrix_is_whole_for_every_tile() -> None:
    def build(g: SeededGraph) -> None:
        codes = np.arange(-64, 64, dtype=np.int8).reshape(16, 8)
        grid = UniformQuantizedType.get(8, 0.125)
        limits = {"low": -128, "high": 127, "grid": grid}
        g.add(integer_dialect.MatmulOp.make(g.input((64, 16), I8), g.constant(codes, I8), **MULTIPLIED, **limits))

    assert _run_both(build, 2048).nodes[-1].opcode == "MATMUL"


@pytest.mark.parametrize("l1m_bytes", [4 << 20, 2048])
def test_constant_operands_are_cut_with_the_tiles(l1m_bytes: int) -> None:
    """Whatever may be constant: the operand of a rescale, of a window, and what is added to a convolution."""
    codes = np.arange(12 * 10 * 4, dtype=np.int16).astype(np.int8).reshape(1, 12, 10, 4)
    limits = {"low": -128, "high": 127, "grid": UniformQuantizedType.get(8, 0.1)}
    half = {"multiplier": np.array([16385], np.int32), "shift": np.array([15], np.int8)}
    window: dict[str, object] = {"kernel": (3, 3), "stride": (1, 1), "pad": (1, 1, 1, 1)}

    def build(g: SeededGraph) -> None:
        same = g.input((1, 12, 10, 4), I8)
        rescaled = g.add(integer_dialect.RescaleOp.make(g.constant(codes, I8), **half, grid=limits["grid"]))
        largest = g.add(float_dialect.MaxPoolOp.make(g.constant(codes, I8), **window, ceil=False))
        g.add(float_dialect.MaximumOp.make(same, largest))
        g.add(float_dialect.ConcatOp.make([rescaled, rescaled], axis=1))
        weight = g.constant(np.ones((4, 1, 1, 4), np.int8), UniformQuantizedType.get(8, 0.01, narrow=True))
        # 0.05 * 0.01 and 0.05 over a common step of 2^-30, which goes to steps of 0.1.
        products, residual, result = (
            quantize_multiplier(ratio, 31) for ratio in (5e-4 * 2**30, 0.05 * 2**30, 2**-30 / 0.1)
        )
        added = {"residual_multiplier": residual, "output_multiplier": result, "multiplier": products}
        scales = {name: np.array([m], np.int32) for name, (m, _) in added.items()}
        scales |= {name.replace("multiplier", "shift"): np.array([s], np.int8) for name, (_, s) in added.items()}
        geometry: dict[str, object] = {"stride": (1, 1), "pad": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1}
        constant = g.constant(codes, I8)
        convolved = integer_dialect.Conv2dOp.make(
            same, weight, None, constant, **geometry, common_scale=2.0**-30, **scales, **limits
        )
        g.add(convolved)

    _run_both(build, l1m_bytes)
