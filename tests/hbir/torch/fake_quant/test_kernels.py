"""Fake quantisation as arithmetic: the definition in numpy, with ==, and the gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hbir.torch.dtype import qint8, qint16
from hbir.torch.fake_quant.kernels import held, held_learning

floats = st.floats(-300, 300, width=32)
scales = st.floats(0.0009765625, 4, width=32)


def defined(x: np.ndarray, scale: np.ndarray, limits: tuple[int, int]) -> np.ndarray:
    return (np.clip(np.rint(x / scale), *limits) * scale).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float32, (3, 7), elements=floats), scales, st.sampled_from([qint8, qint16]), st.booleans())
def test_values_are_those_of_the_definition(x: np.ndarray, scale: float, dtype: object, grad: bool) -> None:
    given_scale = np.array([scale], np.float32)
    values = torch.from_numpy(x.copy()).requires_grad_(grad)
    found = held(values, torch.from_numpy(given_scale), None, dtype.limits)
    assert np.array_equal(found.detach().numpy(), defined(x, given_scale, dtype.limits))
    assert np.array_equal(values.detach().numpy(), x)


def test_ties_are_divided_not_multiplied() -> None:
    # Of all halves of this scale, the product with the reciprocal rounds some the other way.
    scale = np.array([0.11], np.float32)
    x = ((np.arange(-127, 127) + 0.5) * scale).astype(np.float32)
    exact = defined(x, scale, qint8.limits)
    assert np.array_equal(held(torch.from_numpy(x), torch.from_numpy(scale), None, qint8.limits).numpy(), exact)
    zeros = torch.zeros(1, dtype=torch.int32)
    other = torch.fake_quantize_per_tensor_affine(
        torch.from_numpy(x), torch.from_numpy(scale), zeros, -128, 127
    ).numpy()
    assert not np.array_equal(other, exact)


@pytest.mark.parametrize("axis", [0, 1])
def test_each_channel_has_its_scale(axis: int) -> None:
    x, scale = torch.randn(4, 4, 3, 3), torch.tensor([0.1, 0.01, 1.0, 0.03])
    found = held(x, scale, axis, qint8.limits)
    shape = [4, 1, 1, 1] if axis == 0 else [1, 4, 1, 1]
    assert np.array_equal(found.numpy(), defined(x.numpy(), scale.reshape(shape).numpy(), qint8.limits))


@pytest.mark.parametrize("axis", [None, 0])
def test_gradients_pass_inside_the_range_and_stop_outside(axis: int | None) -> None:
    x = torch.tensor([[-200.0, -128.4, -1.0, 0.0], [126.0, 127.4, 127.6, 1e6]], requires_grad=True)
    scale = torch.ones(1) if axis is None else torch.ones(2)
    held(x, scale, axis, qint8.limits).backward(torch.full((2, 4), 3.0))
    assert x.grad is not None
    assert x.grad.tolist() == [[0, 3, 3, 3], [3, 3, 0, 0]]


def test_gradients_use_the_scale_of_the_forward_pass() -> None:
    x, scale = torch.tensor([100.0], requires_grad=True), torch.ones(1)
    y = held(x, scale, None, qint8.limits)
    scale.fill_(0.1)
    y.backward()
    assert x.grad is not None
    assert x.grad.item() == 1


def test_half_precision_is_computed_in_single() -> None:
    x = torch.tensor([0.3, 5.0], dtype=torch.float16)
    assert held(x, torch.tensor([0.1]), None, qint8.limits).dtype == torch.float16


@pytest.mark.parametrize("axis", [None, 0])
def test_learned_step_size_has_the_gradient_of_its_paper(axis: int | None) -> None:
    x, gradient = torch.randn(3, 50, generator=torch.Generator().manual_seed(0)), torch.randn(3, 50)
    scale = torch.full((1 if axis is None else 3,), 0.015, requires_grad=True)
    held_learning(x, scale, axis, qint8.limits).backward(gradient)
    v = x / 0.015
    inside = (v.round() >= -128) & (v.round() <= 127)
    slope = torch.where(inside, v.round() - v, v.round().clamp(-128, 127))
    count = 150 if axis is None else 50
    wanted = (gradient * slope).sum(dim=None if axis is None else 1) / (count * 127) ** 0.5
    assert scale.grad is not None
    # Sums of 50 to 150 float32 products, in another order.
    torch.testing.assert_close(scale.grad, wanted.reshape(scale.shape), rtol=1e-4, atol=1e-4)
