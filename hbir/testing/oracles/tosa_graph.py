"""Small TOSA 1.0 graphs, built op by op and run by Arm's reference model: the part of the TOSA oracle that knows
operand order, constant operands and result shapes. `tosa.py` offers the same as functions from arrays to arrays."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt

from hbir.errors import SimulationError
from hbir.testing.oracles.packages import import_test_package

__all__ = ["Graph", "Tensor"]

serializer: Any = import_test_package("tosa_serializer")
model: Any = import_test_package("tosa_reference_model")

IntArray = npt.NDArray[Any]
Ints = Sequence[int]

DTYPES: dict[str, Any] = {"BOOL": np.bool_, "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT48": np.int64}
BITS = {"BOOL": 2, "INT8": 8, "INT16": 16, "INT32": 32, "INT48": 48}
NAMES: dict[Any, str] = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
ACCUMULATORS = {"INT8": "INT32", "INT16": "INT48"}
_EMBEDDED, _JOINED = 1024, 64


@dataclass(frozen=True)
class Tensor:
    """A value of a graph: TOSA's name for it, its shape, and its type ("INT8", "INT16", "INT32", "INT48", "BOOL",
    "SHAPE")."""

    name: str
    shape: tuple[int, ...]
    dtype: str


def _axis_size(size: int, kernel: int, stride: int, before: int, after: int, dilation: int = 1) -> int:
    """Output size of a window op; the reference model refuses strides that leave a rest, so callers must not have
    one."""
    return (size - 1 + before + after - (kernel - 1) * dilation) // stride + 1


class Graph:
    """One TOSA basic block under construction. Every op method takes and returns `Tensor`s; `run` evaluates the graph.

    Layouts are the project's: NHWC activations, OHWI weights, pad = (top, left, bottom, right).
    """

    def __init__(self) -> None:
        self._block = serializer.TosaSerializer("", serializer.ConstMode.EMBED, 1, 1, 0, True)
        self._raw: dict[str, Any] = {}
        self._feeds: list[tuple[Tensor, IntArray]] = []

    def _remember(self, raw: Any, shape: Ints, dtype: str) -> Tensor:
        tensor = Tensor(raw.name, tuple(int(size) for size in shape), dtype)
        self._raw[tensor.name] = raw
        return tensor

    def input(self, value: npt.ArrayLike, dtype: str | None = None) -> Tensor:
        """A graph input fed with `value`; int64 arrays are INT48."""
        array = np.ascontiguousarray(value)
        dtype = dtype or NAMES[array.dtype]
        raw = self._block.addPlaceholder(list(array.shape), getattr(serializer.DType, dtype))
        tensor = self._remember(raw, array.shape, dtype)
        self._feeds.append((tensor, array.astype(DTYPES[dtype])))
        return tensor

    def const(self, value: npt.ArrayLike, dtype: str) -> Tensor:
        """A constant of TOSA type `dtype`; a scalar becomes a tensor of one element. `SimulationError` HB0792 when it
        does not fit."""
        array = np.atleast_1d(np.asarray(value))
        bits = BITS[dtype]
        if array.size and (int(array.min()) < -(1 << (bits - 1)) or int(array.max()) >= 1 << (bits - 1)):
            raise SimulationError(92, f"a constant in [{array.min()}, {array.max()}] does not fit {dtype}")
        raw = self._block.addConst(list(array.shape), getattr(serializer.DType, dtype), array.reshape(-1).tolist())
        return self._remember(raw, array.shape, dtype)

    def operand(self, value: npt.ArrayLike, dtype: str) -> Tensor:
        """A known value as an operand that need not be a constant: large ones are fed, which takes a fraction of the time.

        INT48 always is a constant: fed, it would take the model's executable."""
        array = np.asarray(value)
        return self.const(array, dtype) if array.size <= _EMBEDDED or dtype == "INT48" else self.input(array, dtype)

    def shape_const(self, value: Ints) -> Tensor:
        """A constant of type `!tosa.shape`."""
        raw = self._block.addConst([len(value)], serializer.DType.SHAPE, [int(each) for each in value])
        return Tensor(raw.name, (len(value),), "SHAPE")

    def apply(
        self, op: str, operands: Sequence[Tensor], shape: Ints, dtype: str, attribute: str, *values: Any
    ) -> Tensor:
        """Any TOSA op: `op` as in `tosa_serializer.Op`, `attribute` such as "Conv2d" with its `values` in serializer
        order."""
        raw = self._block.addIntermediate([int(size) for size in shape], getattr(serializer.DType, dtype))
        result = self._remember(raw, shape, dtype)
        attributes = serializer.TosaSerializerAttribute()
        getattr(attributes, attribute + "Attribute")(*values)
        code = getattr(serializer.Op, op)
        self._block.addOperator(code, [each.name for each in operands], [result.name], attributes)
        return result

    def run(self, *outputs: Tensor, apart: bool = False) -> tuple[IntArray, ...]:
        """Values of `outputs` in their numpy types (INT48 as int64).

        Raises `SimulationError` HB0790 when the model calls the graph invalid or its result unpredictable (an
        overflow of the accumulator, a shift out of range). INT48 results and inputs take the model's executable (6
        ms), all others run in process. `apart` takes the executable too: what may be invalid belongs there, for the
        model forks before it refuses, and the child of a process with threads can wait for a lock that nobody frees.
        """
        for output in outputs:
            self._block.addOutputTensor(self._raw[output.name])
        binary: bytes = self._block.serialize()
        wide = any(tensor.dtype == "INT48" for tensor in [*outputs, *(tensor for tensor, _ in self._feeds)])
        if wide or apart:
            return self._run_executable(binary, outputs)
        try:
            with mock.patch.dict(
                os.environ, PATH=""
            ):  # else the model attaches a debugger, for seconds, before it refuses
                results, status = model.run(binary, [array for _, array in self._feeds])
        except ValueError as error:
            raise SimulationError(90, "the TOSA reference model refused the graph", why=str(error)) from error
        if status != model.GraphStatus.TOSA_VALID:
            raise SimulationError(
                90, f"the TOSA reference model reports {status}", why="the graph breaks a TOSA requirement"
            )
        return tuple(
            np.asarray(result).reshape(output.shape).astype(DTYPES[output.dtype], copy=False)
            for result, output in zip(results, outputs, strict=True)
        )

    def _run_executable(self, binary: bytes, outputs: Sequence[Tensor]) -> tuple[IntArray, ...]:
        executable = Path(model.__file__).parent.parent / "bin" / "tosa_reference_model"
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            (root / "graph.tosa").write_bytes(binary)
            for number, (_, array) in enumerate(self._feeds):
                np.save(root / f"in{number}.npy", array)
            command = [str(executable), "--tosa_file=graph.tosa", f"--flatbuffer_dir={root}", f"--output_dir={root}"]
            if self._feeds:
                command.append("--ifm_name=" + ",".join(tensor.name for tensor, _ in self._feeds))
                command.append("--ifm_file=" + ",".join(f"in{number}.npy" for number in range(len(self._feeds))))
            command.append("--ofm_name=" + ",".join(output.name for output in outputs))
            command.append("--ofm_file=" + ",".join(f"out{number}.npy" for number in range(len(outputs))))
            done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": ""}, cwd=root)
            files = [root / f"out{number}.npy" for number in range(len(outputs))]
            if done.returncode or not all(file.exists() for file in files):
                raise SimulationError(90, "the TOSA reference model refused the graph", why=done.stderr.strip()[-500:])
            return tuple(
                np.load(file).reshape(output.shape).astype(DTYPES[output.dtype])
                for file, output in zip(files, outputs, strict=True)
            )

    # Arithmetic

    def rescale(
        self,
        x: Tensor,
        multiplier: npt.ArrayLike,
        shift: npt.ArrayLike,
        zp_in: int,
        zp_out: int,
        out: str,
        *,
        scale32: bool | None = None,
        rounding: str = "SINGLE_ROUND",
        input_unsigned: bool = False,
        output_unsigned: bool = False,
    ) -> Tensor:
        """RESCALE; per channel (last axis) when `multiplier` has more than one element.

        Multipliers of up to 15 bits go as scale16, wider ones as scale32 (`scale32` overrides). TOSA limits both: the
        scaled value fits int32, and with scale32 the input is below 2^(shift - 1). Raises `SimulationError` HB0791
        for scale32 on INT48.
        """
        factors, shifts = np.broadcast_arrays(np.atleast_1d(np.asarray(multiplier)), np.atleast_1d(np.asarray(shift)))
        if scale32 is None:
            scale32 = int(factors.max()) >= 1 << 15
        if scale32 and x.dtype == "INT48":
            raise SimulationError(
                91, "TOSA rescales int48 with multipliers of at most 15 bits", why=f"given {int(factors.max())}"
            )
        operands = [
            x,
            self.const(factors, "INT32" if scale32 else "INT16"),
            self.const(shifts, "INT8"),
            self.const(zp_in, x.dtype),
            self.const(zp_out, out),
        ]
        mode = getattr(serializer.RoundingMode, rounding)
        flags = (scale32, mode, factors.size > 1, input_unsigned, output_unsigned)
        return self.apply("RESCALE", operands, x.shape, out, "Rescale", *flags)

    def clamp(self, x: Tensor, low: int, high: int) -> Tensor:
        """CLAMP to [low, high]."""
        bounds: list[list[int]] = []
        for value in (low, high):
            data = serializer.TosaSerializer.convertDataToUint8Vec(getattr(serializer.DType, x.dtype), [value])
            bounds.append(list(data) + [0] * (-len(data) % 8))
        return self.apply("CLAMP", [x], x.shape, x.dtype, "Clamp", *bounds, serializer.NanPropagationMode.PROPAGATE)

    def binary(self, op: str, a: Tensor, b: Tensor, *, shift: int = 0) -> Tensor:
        """ADD, SUB, MUL (with its `shift`), MAXIMUM, MINIMUM, INTDIV on tensors of equal rank, broadcasting sizes of 1.

        MUL's result is INT32 for every operand type."""
        shape = np.broadcast_shapes(a.shape, b.shape)
        attribute = {
            "ADD": "Add",
            "SUB": "Sub",
            "MUL": "Mul",
            "MAXIMUM": "Maximum",
            "MINIMUM": "Minimum",
            "INTDIV": "IntDiv",
        }[op]
        if op == "MUL":
            return self.apply(op, [a, b, self.const(shift, "INT8")], shape, "INT32", attribute)
        values = [serializer.NanPropagationMode.PROPAGATE] if op in ("MAXIMUM", "MINIMUM") else []
        return self.apply(op, [a, b], shape, a.dtype, attribute, *values)

    def compare(self, op: str, a: Tensor, b: Tensor) -> Tensor:
        """EQUAL, GREATER, GREATER_EQUAL of INT32 tensors: BOOL."""
        attribute = {"EQUAL": "Equal", "GREATER": "Greater", "GREATER_EQUAL": "GreaterEqual"}[op]
        return self.apply(op, [a, b], np.broadcast_shapes(a.shape, b.shape), "BOOL", attribute)

    def select(self, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """SELECT: a where the condition holds, else b."""
        shape = np.broadcast_shapes(condition.shape, a.shape, b.shape)
        return self.apply("SELECT", [condition, a, b], shape, a.dtype, "Select")

    def right_shift(self, x: Tensor, amount: Tensor, *, rounding: bool) -> Tensor:
        """ARITHMETIC_RIGHT_SHIFT, rounding half up when asked."""
        shape = np.broadcast_shapes(x.shape, amount.shape)
        return self.apply("ARITHMETIC_RIGHT_SHIFT", [x, amount], shape, x.dtype, "ArithmeticRightShift", rounding)

    def left_shift(self, x: Tensor, amount: Tensor) -> Tensor:
        """LOGICAL_LEFT_SHIFT."""
        return self.apply(
            "LOGICAL_LEFT_SHIFT", [x, amount], np.broadcast_shapes(x.shape, amount.shape), x.dtype, "LogicalLeftShift"
        )

    def clz(self, x: Tensor) -> Tensor:
        """CLZ: leading zeros of INT32 values."""
        return self.apply("CLZ", [x], x.shape, x.dtype, "Clz")

    def cast(self, x: Tensor, out: str) -> Tensor:
        """CAST between integer types (no saturation)."""
        return self.apply("CAST", [x], x.shape, out, "Cast")

    def table(self, x: Tensor, entries: npt.ArrayLike) -> Tensor:
        """TABLE: INT8 with 256 entries gives INT8, INT16 with 513 gives INT32 with 7 fractional bits."""
        return self.apply(
            "TABLE", [x, self.const(entries, x.dtype)], x.shape, "INT8" if x.dtype == "INT8" else "INT32", "Table"
        )

    def gather(self, values: Tensor, indices: Tensor) -> Tensor:
        """GATHER: values [N, K, C], indices INT32 [N, W] give [N, W, C]."""
        shape = (*indices.shape, values.shape[2])
        return self.apply("GATHER", [values, indices], shape, values.dtype, "Gather")

    # Windows and products

    def conv2d(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        *,
        pad: Ints,
        stride: Ints,
        dilation: Ints = (1, 1),
        zp: int = 0,
        zp_w: int = 0,
    ) -> Tensor:
        """CONV2D: weight [O, kh, kw, I], bias [O] or [1]; the accumulator is INT32 for INT8 inputs and INT48 for
        INT16."""
        (n, h, w, _), (o, kh, kw, _) = x.shape, weight.shape
        top, left, bottom, right = pad
        shape = (
            n,
            _axis_size(h, kh, stride[0], top, bottom, dilation[0]),
            _axis_size(w, kw, stride[1], left, right, dilation[1]),
            o,
        )
        return self._convolve("CONV2D", "Conv2d", x, weight, bias, shape, (pad, stride, dilation), zp, zp_w)

    def depthwise_conv2d(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        *,
        pad: Ints,
        stride: Ints,
        dilation: Ints = (1, 1),
        zp: int = 0,
        zp_w: int = 0,
    ) -> Tensor:
        """DEPTHWISE_CONV2D: weight [kh, kw, C, M], output channel c * M + m."""
        (n, h, w, c), (kh, kw, _, m) = x.shape, weight.shape
        top, left, bottom, right = pad
        shape = (
            n,
            _axis_size(h, kh, stride[0], top, bottom, dilation[0]),
            _axis_size(w, kw, stride[1], left, right, dilation[1]),
            c * m,
        )
        return self._convolve(
            "DEPTHWISE_CONV2D", "DepthwiseConv2d", x, weight, bias, shape, (pad, stride, dilation), zp, zp_w
        )

    def transpose_conv2d(
        self, x: Tensor, weight: Tensor, bias: Tensor, *, out_pad: Ints, stride: Ints, zp: int = 0, zp_w: int = 0
    ) -> Tensor:
        """TRANSPOSE_CONV2D: weight [O, kh, kw, I], out_pad (top, bottom, left, right) in TOSA's order, negative to
        crop."""
        (n, h, w, _), (o, kh, kw, _) = x.shape, weight.shape
        height = (h - 1) * stride[0] + out_pad[0] + out_pad[1] + kh
        width = (w - 1) * stride[1] + out_pad[2] + out_pad[3] + kw
        operands = [x, weight, bias, self.const(zp, x.dtype), self.const(zp_w, weight.dtype)]
        accumulator = ACCUMULATORS[x.dtype]
        values = (list(out_pad), list(stride), False, getattr(serializer.DType, accumulator))
        return self.apply("TRANSPOSE_CONV2D", operands, (n, height, width, o), accumulator, "TransposeConv2d", *values)

    def _convolve(
        self,
        op: str,
        attribute: str,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        shape: Ints,
        window: tuple[Ints, Ints, Ints],
        zp: int,
        zp_w: int,
    ) -> Tensor:
        pad, stride, dilation = window
        operands = [x, weight, bias, self.const(zp, x.dtype), self.const(zp_w, weight.dtype)]
        accumulator = ACCUMULATORS[x.dtype]
        top, left, bottom, right = pad
        values = (
            [top, bottom, left, right],
            list(stride),
            list(dilation),
            False,
            getattr(serializer.DType, accumulator),
        )
        return self.apply(op, operands, shape, accumulator, attribute, *values)

    def matmul(self, a: Tensor, b: Tensor, *, zp_a: int = 0, zp_b: int = 0) -> Tensor:
        """MATMUL of [N, H, C] and [N, C, W] to an INT32 (INT8 operands) or INT48 accumulator."""
        operands = [a, b, self.const(zp_a, a.dtype), self.const(zp_b, b.dtype)]
        return self.apply("MATMUL", operands, (*a.shape[:2], b.shape[2]), ACCUMULATORS[a.dtype], "MatMul")

    def max_pool2d(self, x: Tensor, *, kernel: Ints, stride: Ints, pad: Ints) -> Tensor:
        """MAX_POOL2D; padding never wins."""
        top, left, bottom, right = pad
        values = (list(kernel), list(stride), [top, bottom, left, right], serializer.NanPropagationMode.PROPAGATE)
        return self.apply("MAX_POOL2D", [x], self._pooled(x, kernel, stride, pad), x.dtype, "MaxPool2d", *values)

    def avg_pool2d(
        self, x: Tensor, *, kernel: Ints, stride: Ints, pad: Ints, zp_in: int = 0, zp_out: int = 0
    ) -> Tensor:
        """AVG_POOL2D; the count leaves padding out."""
        top, left, bottom, right = pad
        operands = [x, self.const(zp_in, x.dtype), self.const(zp_out, x.dtype)]
        values = (list(kernel), list(stride), [top, bottom, left, right], serializer.DType.INT32)
        return self.apply("AVG_POOL2D", operands, self._pooled(x, kernel, stride, pad), x.dtype, "AvgPool2d", *values)

    def _pooled(self, x: Tensor, kernel: Ints, stride: Ints, pad: Ints) -> tuple[int, ...]:
        n, h, w, c = x.shape
        height = _axis_size(h, kernel[0], stride[0], pad[0], pad[2])
        return n, height, _axis_size(w, kernel[1], stride[1], pad[1], pad[3]), c

    def reduce(self, op: str, x: Tensor, axis: int) -> Tensor:
        """REDUCE_SUM (INT32), REDUCE_MAX, REDUCE_MIN over one axis, which keeps size 1."""
        shape = [1 if i == axis else size for i, size in enumerate(x.shape)]
        attribute = {"REDUCE_SUM": "ReduceSum", "REDUCE_MAX": "ReduceMax", "REDUCE_MIN": "ReduceMin"}[op]
        values = [axis] if op == "REDUCE_SUM" else [axis, serializer.NanPropagationMode.PROPAGATE]
        return self.apply(op, [x], shape, x.dtype, attribute, *values)

    def argmax(self, x: Tensor, axis: int) -> Tensor:
        """ARGMAX: INT32 index of the first maximum; the axis disappears."""
        shape = x.shape[:axis] + x.shape[axis + 1 :]
        return self.apply("ARGMAX", [x], shape, "INT32", "ArgMax", axis, serializer.NanPropagationMode.PROPAGATE)

    # Layout

    def concat(self, tensors: Sequence[Tensor], axis: int) -> Tensor:
        """CONCAT along one axis; several of them for more tensors than TOSA's level 8K joins at once."""
        while len(tensors) > _JOINED:
            parts = [tensors[start : start + _JOINED] for start in range(0, len(tensors), _JOINED)]
            tensors = [self.concat(part, axis) for part in parts]
        shape = list(tensors[0].shape)
        shape[axis] = sum(each.shape[axis] for each in tensors)
        return self.apply("CONCAT", tensors, shape, tensors[0].dtype, "Concat", axis)

    def pad(self, x: Tensor, padding: Sequence[tuple[int, int]], value: int) -> Tensor:
        """PAD with (before, after) per axis."""
        shape = [size + before + after for size, (before, after) in zip(x.shape, padding, strict=True)]
        flat = [amount for pair in padding for amount in pair]
        return self.apply("PAD", [x, self.shape_const(flat), self.const(value, x.dtype)], shape, x.dtype, "Pad")

    def reshape(self, x: Tensor, shape: Ints) -> Tensor:
        """RESHAPE."""
        return self.apply("RESHAPE", [x, self.shape_const(shape)], shape, x.dtype, "Reshape")

    def slice(self, x: Tensor, start: Ints, size: Ints) -> Tensor:
        """SLICE of `size` elements from `start`."""
        return self.apply("SLICE", [x, self.shape_const(start), self.shape_const(size)], size, x.dtype, "Slice")

    def tile(self, x: Tensor, multiples: Ints) -> Tensor:
        """TILE."""
        shape = [size * times for size, times in zip(x.shape, multiples, strict=True)]
        return self.apply("TILE", [x, self.shape_const(multiples)], shape, x.dtype, "Tile")

    def transpose(self, x: Tensor, permutation: Ints) -> Tensor:
        """TRANSPOSE, numpy's meaning of the permutation."""
        return self.apply("TRANSPOSE", [x], [x.shape[p] for p in permutation], x.dtype, "Transpose", list(permutation))

    def reverse(self, x: Tensor, axis: int) -> Tensor:
        """REVERSE along one axis."""
        return self.apply("REVERSE", [x], x.shape, x.dtype, "Reverse", axis)

    def resize(self, x: Tensor, *, scale: Ints, offset: Ints, border: Ints, mode: str) -> Tensor:
        """RESIZE of NHWC: scale (y_n, y_d, x_n, x_d), offset and border (y, x), mode "NEAREST" or "BILINEAR".

        Bilinear results are scaled by y_n * x_n: INT32 from INT8, INT48 from INT16."""
        n, h, w, c = x.shape
        height = ((h - 1) * scale[0] - offset[0] + border[0]) // scale[1] + 1
        width = ((w - 1) * scale[2] - offset[1] + border[1]) // scale[3] + 1
        operands = [x, self.shape_const(scale), self.shape_const(offset), self.shape_const(border)]
        out = x.dtype if mode == "NEAREST" else ACCUMULATORS[x.dtype]
        return self.apply(
            "RESIZE", operands, (n, height, width, c), out, "Resize", getattr(serializer.ResizeMode, mode)
        )
