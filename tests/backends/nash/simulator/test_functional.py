"""Programs run and give the kernels' numbers; check mode sees what a proof would have refused."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from xdsl.dialects.builtin import f32

from backends.nash.compiler import CompileOptions, compile_model
from backends.nash.hbm import HostSegment, Model, Tensor, read, write
from backends.nash.isa import DTYPES, Event, Memories, ProgramBuilder, View, assemble
from backends.nash.simulator import bind
from backends.nash.simulator.functional import eager_order
from hbir import kernels
from hbir.dialects.hbir import LinearOp, PowOp
from hbir.dialects.quant import UniformQuantizedType
from hbir.dialects.quantized import DequantizeOp
from hbir.errors import FileFormatError, SimulationError
from hbir.kernels.softmax import softmax
from hbir.march import load_march
from hbir.numerics.lut import SegmentedTable
from hbir.testing import Seeded, example_feeds
from hbir.testing.graphs import SeededGraph
from tests.backends.nash.samples import POOL_TEXT, ConvLayer, pool_model, tiled_conv_model

Array = npt.NDArray[Any]


def image(seed: int = 0) -> npt.NDArray[np.int8]:
    return np.random.default_rng(seed).integers(-128, 128, (1, 8, 8, 16), np.int8)


def test_a_hand_written_program_runs() -> None:
    x = image()
    for check in (False, True):
        y = bind(pool_model(), check=check).run({"x": x})["y"]
        assert (y == x.reshape(1, 4, 2, 4, 2, 16).max((2, 4))).all()


def test_a_bound_model_runs_again_and_its_results_are_kept() -> None:
    bound = bind(pool_model())
    first = bound.run({"x": image(1)})["y"]
    copy = first.copy()
    bound.run({"x": image(2)})
    assert (first == copy).all()


@pytest.mark.parametrize("tile", [1, 3, 4, 16])
def test_tiled_convolutions_equal_the_whole_ones(tile: int, tmp_path: Any) -> None:
    rng = np.random.default_rng(0)
    layers = [ConvLayer.random(rng, 16, 3, 8), ConvLayer.random(rng, 24, 1, 16), ConvLayer.random(rng, 8, 5, 24)]
    x = rng.integers(-128, 128, (1, 16, 9, 8), np.int8)
    expected = x
    for layer in layers:
        expected = layer.evaluate(expected)
    write([tiled_conv_model(layers, 16, 9, tile)], tmp_path / "a.hbm")
    (model,) = read(tmp_path / "a.hbm")
    for check in (False, True):
        assert (bind(model, check=check).run({"x": x})["y"] == expected).all()


def test_the_eager_order_differs_and_is_legal() -> None:
    rng = np.random.default_rng(0)
    program = tiled_conv_model([ConvLayer.random(rng, 8, 3, 8), ConvLayer.random(rng, 8, 3, 8)], 16, 8, 2).program
    order = eager_order(program)
    assert sorted(order) == list(range(len(program)))
    assert order != list(range(len(program)))
    done: dict[int, int] = {}
    for index in order:
        d = program.decoded[index]
        assert all(done.get(wait.queue, 0) >= wait.completed for wait in d.waits)
        done[d.queue] = done.get(d.queue, 0) + 1


def test_check_mode_shows_a_missing_event_that_was_not_verified() -> None:
    text = POOL_TEXT.replace(" ; wait LOAD0>=1", "")
    with pytest.raises(SimulationError) as caught:
        bind(pool_model(text), check=True, verify=False).run({"x": image()})
    assert caught.value.code == "HB0704"
    assert "instruction 1, layer 'pool'" in str(caught.value)
    with pytest.raises(SimulationError) as caught:
        bind(pool_model(text))
    assert caught.value.code == "HB0707"


def test_check_mode_starts_from_poison_every_time() -> None:
    # In program order the second run would find the first run's data where the program forgets to load.
    bound = bind(pool_model(), check=True)
    bound.run({"x": image()})
    bad = bind(
        pool_model("\n".join(POOL_TEXT.splitlines()[3:]).replace(" ; wait LOAD0>=1", "")), check=True, verify=False
    )
    for _ in range(2):
        with pytest.raises(SimulationError, match="MAXPOOL reads 'x'"):
            bad.run({"x": image()})


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        ({}, "HB0708"),
        ({"x": image(), "z": image()}, "HB0708"),
        ({"x": image()[:, :7]}, "HB0709"),
        ({"x": image().astype(np.int16)}, "HB0709"),
        ({"x": 3}, "HB0709"),
    ],
)
def test_inputs_are_taken_as_they_are_or_refused(inputs: dict[str, Any], code: str) -> None:
    with pytest.raises(SimulationError) as caught:
        bind(pool_model()).run(inputs)
    assert caught.value.code == code


HOST_TEXT = """
"builtin.module"() ({
  "func.func"() <{function_type = (tensor<4xf32>) -> tensor<4xf32>, sym_name = "f"}> ({
  ^bb0(%0: tensor<4xf32>):
    "func.return"(%0) : (tensor<4xf32>) -> ()
  }) : () -> ()
}) : () -> ()
"""
HOST_CALL = "HOST_CALL@0 operand0=DDR[0x0] f32 4, operand1=DDR[0x40] f32 4 ; function=0 inputs=1\n"


def host_model(text: str = HOST_CALL, host: str = HOST_TEXT) -> Model:
    return Model(
        name="host",
        march=load_march("nash-e"),
        memories=Memories(ddr=192, l1m=0),
        inputs=(Tensor("x", View.dense("DDR", "f32", (4,), 0)),),
        outputs=(Tensor("y", View.dense("DDR", "f32", (4,), 64)),),
        constants=memoryview(b""),
        program=assemble(text),
        host=HostSegment(host, {}),
    )


def test_host_calls_run_a_function_of_the_host_section() -> None:
    x = np.arange(4, dtype=np.float32)
    for check in (False, True):
        assert (bind(host_model(), check=check).run({"x": x})["y"] == x).all()


def test_host_calls_that_do_not_fit_are_refused() -> None:
    with pytest.raises(SimulationError, match="no host function 3"):
        bind(host_model(HOST_CALL.replace("function=0", "function=3")))
    twice = HOST_CALL.replace(" ;", ", operand2=DDR[0x50] f32 4 ;")
    with pytest.raises(SimulationError, match="other inputs and outputs"):
        bind(host_model(twice))
    bad = HOST_CALL.replace("operand1=DDR[0x40] f32 4", "operand1=DDR[0x40] f32 2x2")
    with pytest.raises(SimulationError, match="the host function gives"):
        bind(replace(host_model(bad), outputs=())).run({"x": np.zeros(4, np.float32)})
    constants = {hashlib.sha256(b"a").hexdigest(): memoryview(b"b")}
    with pytest.raises(FileFormatError, match="does not have its hash"):
        bind(replace(host_model(), host=HostSegment(HOST_TEXT, constants)))


def test_indices_outside_the_map_are_an_error_not_a_wrap() -> None:
    for index in (-1, 4):
        model = one_op(
            "RESIZE_NEAREST",
            {
                "x": np.zeros((1, 4, 4, 2), np.int8),
                "rows": np.array([0, index], np.int32),
                "columns": np.zeros(2, np.int32),
            },
            np.zeros((1, 2, 2, 2), np.int8),
        )
        with pytest.raises(SimulationError) as caught:
            bind(model).run({"x": np.zeros((1, 4, 4, 2), np.int8)})
        assert caught.value.code == "HB0711"


def one_op(name: str, operands: dict[str, Array], out: Array, **params: int | float) -> Model:
    """LOADs, one instruction, a STORE. The first operand is the input "x", the others are constants."""
    names = {np.dtype(dtype): key for key, dtype in DTYPES.items()}
    constants, views = bytearray(), dict[str, View]()
    first, *others = operands
    for key in others:
        constants += bytes(-len(constants) % 64)
        views[key] = View.dense("DDR", names[operands[key].dtype], operands[key].shape, len(constants))
        constants += operands[key].tobytes()
    constants += bytes(-len(constants) % 64)
    at = len(constants)
    views[first] = View.dense("DDR", names[operands[first].dtype], operands[first].shape, at)
    at += views[first].nbytes + -views[first].nbytes % 64
    result = View.dense("DDR", names[out.dtype], out.shape, at)
    b, local, l1m = ProgramBuilder(), dict[str, View](), 0
    events: list[Event] = []
    for key, view in views.items():
        local[key] = View.dense("L1M", view.dtype, view.shape, l1m)
        l1m += view.nbytes + -view.nbytes % 64
        events.append(b.append("LOAD", {"src": view, "dst": local[key]}))
    target = View.dense("L1M", result.dtype, out.shape, l1m)
    done = b.append(name, {**local, "dst" if name == "COPY" else "out": target}, params, waits=events)
    b.append("STORE", {"src": target, "dst": result}, waits=[done])
    memories = Memories(ddr=at + result.nbytes, l1m=l1m + result.nbytes, constants=len(constants))
    tensors = (Tensor("x", views[first]),), (Tensor("y", result),)
    return Model("one", load_march("nash-p"), memories, *tensors, memoryview(bytes(constants)), b.build())


RNG = np.random.default_rng(7)
X8 = RNG.integers(-128, 128, (1, 6, 5, 8), np.int8)
Y8 = RNG.integers(-128, 128, (1, 6, 5, 8), np.int8)
X16 = RNG.integers(-32768, 32768, (1, 6, 5, 8), np.int16)
T8, T16 = RNG.integers(-128, 128, 256, np.int8), RNG.integers(-32768, 32768, 513, np.int16)
M8, S8 = RNG.integers(1 << 14, 1 << 15, 8, np.int32), np.full(8, 16, np.int8)
OUT: dict[str, Any] = {"multiplier": 20001, "shift": 15, "zp_out": 3, "low": -100, "high": 101}


def kernel_out(shift: int) -> dict[str, Any]:
    return {"multiplier": 20001, "shift": shift, "zp_out": 3, "lo": -100, "hi": 101}


SUM: dict[str, Any] = {
    "zp_a": 1,
    "multiplier_a": 16385,
    "shift_a": 14,
    "zp_b": -2,
    "multiplier_b": 20001,
    "shift_b": 15,
}
KERNEL_SUM: dict[str, Any] = {**SUM, "multiplier_out": 20001, "shift_out": 15, "zp_out": 3, "lo": -100, "hi": 101}
WINDOW: dict[str, Any] = {
    "kernel_h": 3,
    "kernel_w": 2,
    "stride_h": 2,
    "stride_w": 1,
    "pad_top": 1,
    "pad_left": 1,
    "pad_right": 1,
}
KERNEL_WINDOW: dict[str, Any] = {"kernel": (3, 2), "stride": (2, 1), "pad": (1, 1, 0, 1)}
RESIZE: dict[str, Any] = {
    "scale_yn": 4,
    "scale_yd": 2,
    "scale_xn": 4,
    "scale_xd": 2,
    "offset_y": -1,
    "offset_x": -1,
    "border_y": 1,
    "border_x": 1,
}
KERNEL_RESIZE: dict[str, Any] = {"scale": (4, 2, 4, 2), "offset": (-1, -1), "border": (1, 1)}
EXP, RECIPROCAL = (
    np.sort(RNG.integers(1, 32767, 256)).astype(np.int16),
    np.arange(32767, 32767 - 513 * 20, -20, np.int16),
)
EXP[255] = 32767
ROWS, COLUMNS = np.array([5, 0, 2], np.int32), np.array([1, 1], np.int32)
STARTS, SPACINGS = np.array([-32768, 0], np.int16), np.array([10, 9], np.int8)
ENTRIES = RNG.integers(-32768, 32768, (2, 64), np.int16)
F32 = RNG.normal(0, 4, (2, 3, 8)).astype(np.float32)
SCALES = RNG.uniform(0.01, 1, 8).astype(np.float32)
WEIGHT = RNG.integers(-20, 20, (12, 3, 3, 4), np.int8)
BIAS12, M12, S12 = (
    RNG.integers(-99, 99, 12, np.int32),
    RNG.integers(1 << 14, 1 << 15, 12, np.int32),
    np.full(12, 22, np.int8),
)
P12 = RNG.integers(-(1 << 20), 1 << 20, (1, 6, 5, 12), np.int32)
R12 = RNG.integers(-128, 128, (1, 6, 5, 12), np.int8)
CONV: dict[str, Any] = {
    "kernel_h": 3,
    "kernel_w": 3,
    "pad_top": 1,
    "pad_left": 1,
    "pad_bottom": 1,
    "pad_right": 1,
    "groups": 2,
    "pad_value": 3,
    "zp_out": -1,
    "low": -90,
    "high": 127,
}
KERNEL_CONV: dict[str, Any] = {"weight_shape": (12, 3, 3, 4), "pad": (1, 1, 1, 1), "groups": 2, "pad_value": 3}
PACKED = kernels.pack_weight(WEIGHT, groups=2)

CASES: list[tuple[str, dict[str, Any], dict[str, Any], Array]] = [
    (
        *("CONV", {"x": X8, "weight": PACKED, "bias": BIAS12, "multiplier": M12, "shift": S12, "residual": R12}),
        CONV
        | {"residual_zp": 2, "residual_multiplier": 20001, "residual_shift": 15}
        | {"output_multiplier": 16385, "output_shift": 15},
        kernels.conv2d(
            *(X8, PACKED, BIAS12, M12, S12), **KERNEL_CONV, zp_out=-1, lo=-90, hi=127, residual=R12, residual_zp=2,
            residual_multiplier=20001, residual_shift=15, out_multiplier=16385, out_shift=15,
        ),
    ),
    (
        *("CONV", {"x": X8, "weight": PACKED, "bias": BIAS12, "partial": P12}, CONV),
        kernels.conv2d(X8, PACKED, BIAS12, None, None, **KERNEL_CONV, out_dtype=np.int32) + P12,
    ),
    (
        *("CONV", {"x": X8, "weight": PACKED, "bias": BIAS12}, CONV),
        kernels.conv2d(X8, PACKED, BIAS12, None, None, **KERNEL_CONV, out_dtype=np.int32),
    ),
    (
        *("MATMUL", {"a": X8[0], "b": np.ascontiguousarray(Y8[0].transpose(0, 2, 1))}, {"zp_a": 2, **OUT, "shift": 20}),
        kernels.matmul(X8[0], Y8[0].transpose(0, 2, 1), zp_a=2, **kernel_out(20)),
    ),
    ("ADD", {"a": X8, "b": Y8}, SUM | OUT, kernels.add(X8, Y8, **KERNEL_SUM)),
    ("SUB", {"a": X8, "b": Y8[:, :1]}, SUM | OUT, kernels.sub(X8, Y8[:, :1], **KERNEL_SUM)),
    (
        *("MUL", {"a": X8, "b": Y8}, {"zp_a": 1, "zp_b": 2, **OUT, "shift": 22}),
        kernels.mul(X8, Y8, zp_a=1, zp_b=2, **kernel_out(22)),
    ),
    ("MAXIMUM", {"a": X8, "b": Y8}, {}, np.maximum(X8, Y8)),
    ("MINIMUM", {"a": X16, "b": X16[::-1]}, {}, np.minimum(X16, X16[::-1])),
    ("CLAMP", {"x": X8}, {"low": -5, "high": 60}, np.clip(X8, -5, 60)),
    (
        *("RESCALE", {"x": X16}, {"zp_in": 4, **OUT, "shift": 22}),
        kernels.rescale(X16, 20001, 22, zp_in=4, zp_out=3, lo=-100, hi=101, out_dtype=np.int8),
    ),
    (
        *("RESCALE", {"x": X8, "multiplier": M8, "shift": S8}, {"zp_in": 4, "low": -128, "high": 127}),
        kernels.rescale(X8, M8, S8, zp_in=4),
    ),
    ("TABLE8", {"x": X8, "table": T8}, {}, T8[X8.astype(int) + 128]),
    ("TABLE16", {"x": X16, "table": T16}, {**OUT, "shift": 29}, kernels.table_int16(X16, T16, **kernel_out(29))),
    (
        *("REDUCE_SUM", {"x": X8}, {"axes": 6, "zp_in": 1, **OUT, "shift": 20}),
        kernels.reduce_sum(X8, (1, 2), zp_in=1, **kernel_out(20)),
    ),
    (
        *("SEGMENTED", {"x": X16, "starts": STARTS, "spacings": SPACINGS, "entries": ENTRIES}, {}),
        SegmentedTable(STARTS, SPACINGS.view(np.uint8), ENTRIES).evaluate(X16),
    ),
    ("REDUCE_MAX", {"x": X8}, {"axes": 10}, X8.max((1, 3), keepdims=True)),
    ("REDUCE_MIN", {"x": X16}, {"axes": 4}, X16.min(2, keepdims=True)),
    (
        *("SOFTMAX", {"x": X8, "exp_table": EXP, "reciprocal_table": RECIPROCAL}, {"axis": 2, **OUT, "shift": 36}),
        softmax(X8, EXP, RECIPROCAL, axis=2, **kernel_out(36)),
    ),
    ("MAXPOOL", {"x": X8}, WINDOW, kernels.max_pool2d(X8, **KERNEL_WINDOW)),
    (
        *("AVGPOOL", {"x": X8}, WINDOW | {"zp_in": 1, "zp_out": 2, "low": -99, "high": 99}),
        kernels.avg_pool2d(X8, **KERNEL_WINDOW, zp_in=1, zp_out=2, lo=-99, hi=99),
    ),
    (
        *("RESIZE_NEAREST", {"x": X8, "rows": ROWS, "columns": COLUMNS}, {}),
        X8[:, [5, 0, 2]][:, :, [1, 1]],
    ),
    (
        *("RESIZE_BILINEAR", {"x": X8}, RESIZE | {"zp_in": 1, **OUT, "shift": 18}),
        kernels.resize(X8, mode="bilinear", **KERNEL_RESIZE, zp_in=1, **kernel_out(18)),
    ),
    ("COPY", {"src": X16}, {}, X16),
    (
        *("QUANTIZE", {"x": F32}, {"scale": 0.1, "zp": 3, "low": -60, "high": 127}),
        kernels.quantize(F32, np.float32(0.1), 3, -60, 127),
    ),
    ("DEQUANTIZE", {"x": X8}, {"scale": 0.3, "zp": -4}, kernels.dequantize(X8, np.float32(0.3), -4)),
    ("DEQUANTIZE", {"x": X8, "scales": SCALES}, {}, kernels.dequantize(X8, SCALES, 0, axis=3)),
    ("ARGMAX", {"x": X8}, {"axis": 3}, X8.argmax(3)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[f"{case[0]}{index}" for index, case in enumerate(CASES)])
def test_each_opcode_means_its_kernel(case: tuple[str, dict[str, Any], dict[str, Any], Array]) -> None:
    name, operands, params, expected = case
    model = one_op(name, operands, expected, **params)
    x = operands[next(iter(operands))]
    for check in (False, True):
        y = bind(model, check=check).run({"x": x})["y"]
        assert y.dtype == expected.dtype
        assert np.array_equal(y, expected)


def test_host_constants_may_lie_anywhere() -> None:
    """Numpy's loops differ in the last bit between aligned and unaligned arrays: the host works on aligned ones."""
    graph = SeededGraph(Seeded(0, []))
    x = graph.input((360,), UniformQuantizedType.get(16, 2.0**-12))
    floats = graph.add(DequantizeOp.make(x, grid=UniformQuantizedType.get(16, 2.0**-12)))
    graph.add(PowOp.make(floats, graph.constant(np.full((1,), 2.0, np.float32), f32)))
    weight = np.random.default_rng(3).standard_normal((7, 360)).astype(np.float32)
    graph.add(LinearOp.make(floats, graph.constant(weight, f32), None, min=None, max=None))
    module = graph.finish()
    model = compile_model(module, load_march("nash-e"), CompileOptions(opt=0))
    assert model.host is not None
    feed = example_feeds(module[0], 3)
    expected = module[0].feed(feed)
    for shift in range(4):
        constants = {
            name: memoryview(bytes(shift) + bytes(data))[shift:] for name, data in model.host.constants.items()
        }
        found = bind(replace(model, host=replace(model.host, constants=constants))).run(feed)
        for name, value in expected.items():
            assert found[name].tobytes() == value.tobytes(), (shift, name)


def test_memories_beyond_those_of_the_machine_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    model = host_model()
    monkeypatch.setattr("backends.nash.simulator.functional._aligned", full)
    with pytest.raises(SimulationError, match=f"HB0713: the model asks for {model.memories.ddr} bytes of DDR"):
        bind(model)
