"""Packed weights: what they hold, and that slices of channels are ranges of bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbir.kernels import pack_weight, packed_size, unpack_weight


@given(
    st.integers(1, 3), st.integers(1, 40), st.integers(1, 3), st.integers(1, 9), st.sampled_from([np.int8, np.int16])
)
def test_unpack_inverts_pack(
    groups: int, per_group: int, kernel: int, depth: int, dtype: type[np.int8 | np.int16]
) -> None:
    shape = (groups * per_group, kernel, kernel, depth)
    weight = np.random.default_rng(0).integers(-128, 128, shape).astype(dtype)
    packed = pack_weight(weight, groups=groups)
    assert packed.dtype == dtype
    assert packed.shape == (packed_size(shape, groups=groups),)
    assert np.array_equal(unpack_weight(packed, shape, groups=groups), weight)


def test_dense_lines_are_16_channels_by_4_elements() -> None:
    weight = np.arange(32 * 8).reshape(32, 1, 2, 4).astype(np.int16)
    packed = pack_weight(weight).reshape(2, 2, 16, 4)
    assert packed[1, 1, 3].tolist() == weight.reshape(32, 8)[19, 4:].tolist()


@pytest.mark.parametrize(("shape", "groups"), [((50, 3, 3, 5), 1), ((50, 3, 3, 1), 50)])
def test_slices_of_sixteen_channels_are_ranges(shape: tuple[int, int, int, int], groups: int) -> None:
    weight = np.random.default_rng(0).integers(-128, 128, shape).astype(np.int8)
    whole = pack_weight(weight, groups=groups)
    line = whole.size // 4
    for first, last in ((0, 16), (16, 48), (32, 50)):
        part = weight[first:last]
        packed = pack_weight(part, groups=1 if groups == 1 else last - first)
        assert np.array_equal(packed, whole[first // 16 * line :][: packed.size])


def test_refusals() -> None:
    with pytest.raises(ValueError, match="groups"):
        pack_weight(np.zeros((3, 1, 1, 2), np.int8), groups=2)
    with pytest.raises(ValueError, match="elements"):
        unpack_weight(np.zeros(5, np.int8), (1, 1, 1, 1))
