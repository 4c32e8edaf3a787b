"""Convolutions cut along their input channels: partial sums through L1M give the bits of the whole convolution."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.nash.simulator.kernels import BINDERS
from hbir.kernels import conv2d, pack_weight
from hbir.march import load_march
from tests.backends.nash.small_networks import deep_network, heavy_network
from tests.compiled import assert_equal_outputs, compiled

Array = npt.NDArray[Any]


@pytest.mark.parametrize(("bits", "cores"), [(8, 1), (16, 1), (8, 2)])
def test_deep_layers_run_in_little_memory(bits: int, cores: int) -> None:
    name = "nash-p" if cores > 1 else "nash-e"
    module, feeds = deep_network(bits, name)
    march = replace(load_march(name), l1m_bytes=(96 if bits == 16 else 64) << 10)
    binary = compiled(module, march, opt=1, core_num=cores)
    convolutions = [d for d in binary.models[0].program.decoded if d.opcode.name == "CONV"]
    # Some sums are handed on, and some end in an epilogue with a residual.
    assert any("partial" in d.operands and "multiplier" not in d.operands for d in convolutions)
    assert any("partial" in d.operands and "residual" in d.operands for d in convolutions)
    assert_equal_outputs(module, binary, feeds)
    assert_equal_outputs(module, binary, feeds[:1], check=True)


@given(
    kinds=st.sampled_from([("i1", "i1"), ("i2", "i1"), ("i2", "i2")]),
    cut=st.integers(1, 7),
    epilogue=st.sampled_from(["raw", "plain", "residual"]),
    out=st.sampled_from(["i1", "i2"]),
    seed=st.integers(0, 99),
)
def test_two_pieces_equal_the_whole(kinds: tuple[str, str], cut: int, epilogue: str, out: str, seed: int) -> None:
    rng = np.random.default_rng(seed)

    def some(dtype: str, *shape: int) -> Array:
        info = np.iinfo(np.dtype(dtype))
        return rng.integers(info.min, info.max, shape, np.dtype(dtype), endpoint=True)

    x, weight = some(kinds[0], 1, 5, 4, 8), some(kinds[1], 6, 3, 3, 8)
    sums = np.dtype("i4" if kinds[0] == "i1" else "i8")
    bias = rng.integers(-1000, 1000, 6).astype(sums)
    multiplier, shift = rng.integers(1 << 13, 1 << 15, 6).astype(np.int32), np.full(6, 26, np.int8)
    params = {"kernel_h": 3, "kernel_w": 3, "stride_h": 1, "stride_w": 1, "dilation_h": 1, "dilation_w": 1, "groups": 1}
    params |= {"pad_top": 1, "pad_left": 1, "pad_bottom": 1, "pad_right": 1, "pad_value": 3 * (kinds[0] == "i1")}
    info = np.iinfo(np.dtype(out))
    params |= {"zp_out": 2 * (out == "i1"), "low": int(info.min) + 3, "high": int(info.max)}
    params |= {"residual_zp": -1, "residual_multiplier": 20001, "residual_shift": 16}
    params |= {"output_multiplier": 16385, "output_shift": 14}
    scaled: dict[str, Array] = {} if epilogue == "raw" else {"multiplier": multiplier, "shift": shift}
    residual: dict[str, Array] = {"residual": some(out, 1, 5, 4, 6)} if epilogue == "residual" else {}
    result = np.empty((1, 5, 4, 6), sums if epilogue == "raw" else np.dtype(out))
    partial = np.empty((1, 5, 4, 6), sums)
    first = {"x": x[..., :cut], "weight": pack_weight(weight[..., :cut]), "bias": bias, "out": partial}
    second = {"x": x[..., cut:], "weight": pack_weight(weight[..., cut:]), "partial": partial, "out": result}
    BINDERS["CONV"](first, params)()
    BINDERS["CONV"]({**second, **scaled, **residual}, params)()
    extra: dict[str, Any] = {}
    if residual:
        extra = {"residual_zp": -1, "residual_multiplier": 20001, "residual_shift": 16}
        extra |= {**residual, "out_multiplier": 16385, "out_shift": 14}
    whole = conv2d(
        *(x, pack_weight(weight), bias, scaled.get("multiplier"), scaled.get("shift")),
        weight_shape=(6, 3, 3, 8), pad=(1, 1, 1, 1), pad_value=params["pad_value"], zp_out=params["zp_out"],
        lo=params["low"], hi=params["high"], out_dtype=result.dtype, **extra,
    )  # fmt: skip
    assert (result == whole).all()


@pytest.mark.parametrize("size", [96 << 10, 160 << 10])
def test_weights_that_pass_through_give_the_same_numbers(size: int) -> None:
    for (module, feeds), opt in ((heavy_network(1), 0), (heavy_network(1), 1), (heavy_network(2), 1)):
        binary = compiled(module, replace(load_march("nash-e"), l1m_bytes=size, max_dilation=1), opt=opt)
        assert_equal_outputs(module, binary, feeds, check=True)
