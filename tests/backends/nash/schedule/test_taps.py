"""Kernels longer and dilations wider than the tensor engine takes: cut into pieces of the window that accumulate, they give
the bits of the whole convolution, on the engine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from backends.nash.lower import lower
from hbir import Module, export
from hbir.errors import BackendError
from hbir.march import March, load_march
from passes import calibrate, convert
from tests.backends.nash.small_networks import SMALL_NETWORKS, small_network
from tests.compiled import assert_equal_outputs, compiled
from tests.hbir.frontends.onnx.models import text_model

MARCH = load_march("nash-e")

CONVOLUTIONS: dict[str, tuple[str, str, tuple[int, ...]]] = {
    "speech front end": ("strides = [4]", "(float[1,1,400] x) => (float[1,16,81] y)", (16, 1, 80)),
    "long and padded": ("pads = [64,64]", "(float[2,16,90] x) => (float[2,12,91] y)", (12, 16, 128)),
    "grouped": ("pads = [20,20], group = 4", "(float[1,16,60] x) => (float[1,16,60] y)", (16, 4, 41)),
    "depthwise": ("pads = [0,25,0,25], group = 8", "(float[1,8,6,70] x) => (float[1,8,6,70] y)", (8, 1, 1, 51)),
    "tall and strided": ("pads = [17,1,16,1], strides = [3,2]", "(float[1,8,40,9] x) => (float[1,8,14,5] y)", (8, 8, 34, 3)),
    "atrous": (
        "pads = [24,24,24,24], dilations = [24,24]",
        "(float[1,8,33,30] x) => (float[1,20,33,30] y)",
        (20, 8, 3, 3),
    ),
    "wider than the map": (
        "pads = [36,18,36,18], dilations = [36,18]",
        "(float[1,8,20,30] x) => (float[1,6,20,30] y)",
        (6, 8, 3, 3),
    ),
    "both": ("pads = [0,0], dilations = [17]", "(float[1,4,700] x) => (float[1,8,105] y)", (8, 4, 36)),
}  # fmt: skip


_ADDED = "a = Conv <pads = [0,64,0,64]> (x, w) y = Add (a, positions)"
_POSITIONS = {"w": (12, 16, 1, 128), "positions": (2, 12, 1, 91)}


def integer_network(
    name: str, bits: int = 8, march: str = "nash-e"
) -> tuple[Module, list[dict[str, npt.NDArray[Any]]]]:
    """One convolution, its result added to another's and clamped; activations of so many bits."""
    attributes, signature, shape = CONVOLUTIONS[name]
    rng = np.random.default_rng(5)
    weights = {key: rng.uniform(-1, 1, shape).astype(np.float32) for key in ("w", "v")}
    weights["b"] = rng.uniform(-9, 9, shape[0]).astype(np.float32)
    body = f"a = Conv <{attributes}> (x, w, b) r = Relu (a) c = Conv <{attributes}> (x, v) s = Add (c, r) y = Relu (s)"
    module = export(text_model(body, signature, constants=weights))
    (argument,) = module[0].flatten_inputs
    # Off centre: padding then reads a zero point that is not zero.
    feeds = [{"x": rng.uniform(-1, 3, argument.type.shape).astype(np.float32)} for _ in range(2)]
    return convert(calibrate(module, feeds, activation_bits=bits), march), feeds


def assert_the_engine_takes_all(binary: Any, march: March) -> None:
    """Every convolution that is issued keeps the march's limits, and nothing is left to the host."""
    for d in binary.models[0].program.decoded:
        assert d.opcode.name != "HOST_CALL"
        if d.opcode.name == "CONV":
            assert max(d.params["kernel_h"], d.params["kernel_w"]) <= march.max_conv_kernel
            assert max(d.params["dilation_h"], d.params["dilation_w"]) <= march.max_dilation


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("name", list(CONVOLUTIONS))
def test_what_the_engine_does_not_take_whole_runs_on_it_in_pieces(name: str, bits: int) -> None:
    module, feeds = integer_network(name, bits)
    for march in (MARCH, replace(MARCH, l1m_bytes=48 << 10)):
        binary = compiled(module, march, opt=1)
        assert_the_engine_takes_all(binary, march)
        assert any("partial" in d.operands for d in binary.models[0].program.decoded if d.opcode.name == "CONV")
        assert_equal_outputs(module, binary, feeds, check=True)


@pytest.mark.parametrize("name", ["long and padded", "atrous"])
def test_pieces_on_several_cores(name: str) -> None:
    module, feeds = integer_network(name, march="nash-p")
    assert_equal_outputs(module, compiled(module, "nash-p", opt=1, core_num=3), feeds, check=True)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_constant_residual_comes_in_with_the_last_piece(bits: int) -> None:
    rng = np.random.default_rng(7)
    constants = {name: rng.uniform(-1, 1, shape).astype(np.float32) for name, shape in _POSITIONS.items()}
    module = export(text_model(_ADDED, "(float[2,16,1,90] x) => (float[2,12,1,91] y)", constants=constants))
    feeds = [{"x": rng.uniform(-1, 3, (2, 16, 1, 90)).astype(np.float32)}]
    integer = convert(calibrate(module, feeds, activation_bits=bits), "nash-e")
    for march in (MARCH, replace(MARCH, l1m_bytes=48 << 10)):
        binary = compiled(integer, march, opt=1)
        assert_the_engine_takes_all(binary, march)
        ran = [d.operands for d in binary.models[0].program.decoded if d.opcode.name == "CONV"]
        assert any("residual" in operands for operands in ran) and any("partial" in operands for operands in ran)
        assert_equal_outputs(integer, binary, feeds, check=True)


@pytest.mark.parametrize("l1m", [10 << 10, 4 << 20])
@pytest.mark.parametrize("name", list(SMALL_NETWORKS))
def test_an_engine_of_single_taps_gives_the_same_numbers(name: str, l1m: int) -> None:
    march = replace(MARCH, max_conv_kernel=2, max_dilation=1, l1m_bytes=l1m)
    module, feeds = small_network(name)
    binary = compiled(module, march, opt=1)
    # These two pad by more than their windows: some of them read nothing, which no piece of them can do.
    if name not in ("stride", "wide_padding"):
        assert_the_engine_takes_all(binary, march)
    assert_equal_outputs(module, binary, feeds, check=True)


def test_the_window_and_the_input_channels_are_cut_together() -> None:
    rng = np.random.default_rng(3)
    constants = {"w": rng.uniform(-0.1, 0.1, (24, 512, 1, 35)).astype(np.float32)}
    signature = "(float[1,512,2,60] x) => (float[1,24,2,26] y)"
    module = export(text_model("y = Conv (x, w)", signature, constants=constants))
    feeds = [{"x": rng.uniform(-1, 2, (1, 512, 2, 60)).astype(np.float32)}]
    integer = convert(calibrate(module, feeds), "nash-e")
    march = replace(MARCH, l1m_bytes=64 << 10)
    binary = compiled(integer, march, opt=1)
    pieces = {
        (d.params["kernel_w"], d.operands["x"].shape[3])
        for d in binary.models[0].program.decoded
        if d.opcode.name == "CONV"
    }
    assert len(pieces) > 1
    assert all(width < 35 and channels < 512 for width, channels in pieces)
    assert_equal_outputs(integer, binary, feeds, check=True)


def test_taps_that_only_read_padding_cost_nothing() -> None:
    module, _ = integer_network("wider than the map")
    ran = [d for d in compiled(module, MARCH, opt=0).models[0].program.decoded if d.opcode.name == "CONV"]
    # Of 3 x 3 taps the outer rows never meet the map: the middle row is left, for each of two convolutions.
    assert len(ran) == 2 * 3


def test_windows_that_lie_in_the_padding_altogether_go_to_the_host() -> None:
    constants = {"w": np.ones((4, 4, 2), np.float32)}
    text = text_model(
        "y = Conv <pads = [10,10], dilations = [20]> (x, w)",
        "(float[1,4,15] x) => (float[1,4,15] y)",
        constants=constants,
    )
    feeds = [{"x": np.linspace(-1, 3, 60, dtype=np.float32).reshape(1, 4, 15)}]
    module = convert(calibrate(export(text), feeds), "nash-e")
    (call,) = [node for node in lower(module, MARCH).nodes if node.opcode == "HOST_CALL"]
    assert "window" in call.reason and "padding" in call.reason
    assert_equal_outputs(module, compiled(module, MARCH, opt=1), feeds, check=True)


def test_a_march_without_room_for_one_piece_refuses_by_name() -> None:
    module, _ = integer_network("long and padded")
    with pytest.raises(BackendError, match="smallest tile") as refusal:
        compiled(module, replace(MARCH, l1m_bytes=1 << 10), opt=1)
    assert refusal.value.code == "HB0521"
