"""Small hand-made models for the tests of instruction set, container and simulator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from backends.nash.hbm import Model, Quantization, Tensor
from backends.nash.isa import Event, Memories, ProgramBuilder, View, assemble
from hbir.kernels import conv2d, pack_weight
from hbir.march import load_march

POOL_TEXT = (
    '\n.layer 0 "pool"\n'
    "LOAD@0 src=DDR[0x40] i8 1x8x8x16, dst=L1M0[0x0] i8 1x8x8x16\n"
    "MAXPOOL@0 x=L1M0[0x0] i8 1x8x8x16, out=L1M0[0x1000] i8 1x4x4x16"
    " ; kernel_h=2 kernel_w=2 stride_h=2 stride_w=2 ; wait LOAD0>=1\n"
    "STORE@0 src=L1M0[0x1000] i8 1x4x4x16, dst=DDR[0x2000] i8 1x4x4x16 ; wait AAE0>=1\n"
)
"""One layer: input at byte 64 of DDR, behind 64 bytes of constants; output at 8192."""


def pool_model(text: str = POOL_TEXT) -> Model:
    """A 2x2 maximum pool of a 1x8x8x16 input "x" into "y"; `text` may plant errors in its program."""
    return Model(
        name="pool",
        march=load_march("nash-e"),
        memories=Memories(ddr=0x3000, l1m=0x2000, constants=64),
        inputs=(Tensor("x", View.dense("DDR", "i8", (1, 8, 8, 16), 64), Quantization((0.5,), (0,)), "an image"),),
        outputs=(Tensor("y", View.dense("DDR", "i8", (1, 4, 4, 16), 0x2000), Quantization((0.5,), (0,))),),
        constants=memoryview(bytes(range(64))),
        program=assemble(text),
        placements=({"layer": "pool", "unit": "AAE"},),
        options={"opt": 2},
        description="maximum of each window",
        tool_version="1",
    )


@dataclass(frozen=True)
class ConvLayer:
    """A stride-1 'same' convolution with its parameters as the binary holds them."""

    weight: npt.NDArray[np.int8]
    bias: npt.NDArray[np.int32]
    multiplier: npt.NDArray[np.int32]
    shift: npt.NDArray[np.int8]

    @staticmethod
    def random(rng: np.random.Generator, cout: int, kernel: int, cin: int) -> ConvLayer:
        """Random weights whose results fill the int8 range."""
        return ConvLayer(
            rng.integers(-20, 20, (cout, kernel, kernel, cin), np.int8),
            rng.integers(-500, 500, cout, np.int32),
            rng.integers(1 << 14, 1 << 15, cout, np.int32) | 1,
            np.full(cout, 22, np.int8),
        )

    def evaluate(self, x: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
        """The layer on a whole map."""
        pad = self.weight.shape[1] // 2
        return conv2d(
            *(x, pack_weight(self.weight), self.bias, self.multiplier, self.shift),
            weight_shape=self.weight.shape,
            pad=(pad,) * 4,
        )


def tiled_conv_model(layers: Sequence[ConvLayer], height: int, width: int, tile: int, march: str = "nash-e") -> Model:
    """Convolutions one after the other, each in tiles of `tile` rows, double-buffered, weights loaded once a layer.

    Between layers the map goes through DDR. Inputs and weights are loaded ahead as far as the two buffers allow.
    """
    constants = bytearray()
    places: list[dict[str, View]] = []
    for layer in layers:
        row: dict[str, View] = {}
        parts = {
            "weight": pack_weight(layer.weight),
            "bias": layer.bias,
            "multiplier": layer.multiplier,
            "shift": layer.shift,
        }
        for name, array in parts.items():
            constants += bytes(-len(constants) % 64)
            dtype = {1: "i8", 4: "i32"}[array.itemsize]
            row[name] = View.dense("DDR", dtype, array.shape, len(constants))
            constants += array.tobytes()
        places.append(row)
    constants += bytes(-len(constants) % 64)
    at = len(constants)
    maps: list[View] = []
    for channels in (layers[0].weight.shape[3], *(layer.weight.shape[0] for layer in layers)):
        maps.append(View.dense("DDR", "i8", (1, height, width, channels), at))
        at += maps[-1].nbytes + -maps[-1].nbytes % 64
    chain = _Chain(height, width, tile)
    for index, (layer, row) in enumerate(zip(layers, places, strict=True)):
        chain.layer(f"conv{index}", layer, row, maps[index], maps[index + 1])
    return Model(
        name="chain",
        march=load_march(march),
        memories=Memories(ddr=at, l1m=chain.used, constants=len(constants)),
        inputs=(Tensor("x", maps[0]),),
        outputs=(Tensor("y", maps[-1]),),
        constants=memoryview(bytes(constants)),
        program=chain.builder.build(),
    )


class _Chain:
    def __init__(self, height: int, width: int, tile: int) -> None:
        self.builder, self.used = ProgramBuilder(), 0
        self.height, self.width, self.tile = height, width, tile
        self.stored: list[Event] = []
        self.computed: list[Event] = []

    def _buffer(self, size: int) -> int:
        at = self.used
        self.used += size + -size % 64
        return at

    def layer(self, name: str, layer: ConvLayer, constants: dict[str, View], source: View, target: View) -> None:
        cout, kernel, _, cin = layer.weight.shape
        pad, b = kernel // 2, self.builder
        previous_stored, self.stored = self.stored, []
        local: dict[str, View] = {}
        for key, view in constants.items():
            local[key] = View.dense("L1M", view.dtype, view.shape, self._buffer(view.nbytes))
            b.append("LOAD", {"src": view, "dst": local[key]}, layer=name)
        rows_in = self.tile + 2 * pad
        buffers_in = [self._buffer(rows_in * self.width * cin) for _ in range(2)]
        buffers_out = [self._buffer(self.tile * self.width * cout) for _ in range(2)]
        computed: list[Event] = []
        for number, top in enumerate(range(0, self.height, self.tile)):
            rows = min(self.tile, self.height - top)
            first, last = max(top - pad, 0), min(top + rows + pad, self.height)
            x = View.dense("L1M", "i8", (1, last - first, self.width, cin), buffers_in[number % 2])
            y = View.dense("L1M", "i8", (1, rows, self.width, cout), buffers_out[number % 2])
            free = [computed[number - 2]] if number >= 2 else []
            loaded = b.append(
                "LOAD", {"src": _rows(source, first, last), "dst": x}, waits=[*previous_stored, *free], layer=name
            )
            drained = [self.stored[number - 2]] if number >= 2 else []
            params = {
                "kernel_h": kernel,
                "kernel_w": kernel,
                "low": -128,
                "high": 127,
                "pad_left": pad,
                "pad_right": pad,
            }
            params |= {"pad_top": pad - (top - first), "pad_bottom": pad - (last - top - rows)}
            done = b.append("CONV", {"x": x, **local, "out": y}, params, waits=[loaded, *drained], layer=name)
            computed.append(done)
            self.stored.append(
                b.append("STORE", {"src": y, "dst": _rows(target, top, top + rows)}, waits=[done], layer=name)
            )


def _rows(view: View, first: int, last: int) -> View:
    n, _, width, channels = view.shape
    return View(
        view.space, view.dtype, (n, last - first, width, channels), view.address + first * view.strides[1], view.strides
    )
