"""Which unit does which operation, and with what numbers: one function for each operation class.

An operation without a function here runs on the host CPU, on whole tensors in DDR, and is reported with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, Region, SSAValue

from backends.nash.isa.records import DTYPES, MAX_OPERANDS, MAX_RANK
from backends.nash.lower.graph import Node, TensorView, UnitGraph
from backends.nash.lower.limits import engine_reason
from backends.nash.lower.views import Placement, dtype_of, reshaped, sliced
from hbir.dialects import hbir as f
from hbir.dialects import quantized as q
from hbir.dialects.base import HbOperation, shape_of
from hbir.dialects.quant import quantized_element
from hbir.dialects.quantized.conv import folded_bias
from hbir.errors import BackendError
from hbir.ir.constants import ConstantStore
from hbir.ir.files import used_blobs
from hbir.ir.locations import layer_name
from hbir.ir.text import print_module
from hbir.march import March
from hbir.module import Function, Module

__all__ = ["lower", "supported_operations"]

Constants = dict[str, npt.NDArray[Any]]

_WINDOWS = ("CONV", "MAXPOOL", "AVGPOOL")


@dataclass
class _Lowering:
    function: Function
    store: ConstantStore
    march: March
    placement: Placement
    nodes: list[Node] = field(default_factory=list[Node])
    host: list[FuncOp] = field(default_factory=list[FuncOp])

    def array(self, value: SSAValue) -> npt.NDArray[Any] | None:
        """The constant behind a value, or None."""
        return value.owner.array(self.store) if isinstance(value.owner, f.ConstantOp) else None

    def add(
        self,
        opcode: str,
        unit: str,
        op: Operation,
        reads: Mapping[str, SSAValue | TensorView],
        out: TensorView | None = None,
        params: Mapping[str, int | float] | None = None,
        constants: Mapping[str, npt.NDArray[Any]] | None = None,
        macs: int = 0,
    ) -> None:
        """Add a node whose result is `op`'s. Operands that are constants move to the node's constants."""
        held: Constants = dict(constants or {})
        views: dict[str, TensorView] = {}
        for role, value in reads.items():
            if isinstance(value, TensorView):
                views[role] = value
                continue
            array = self.array(value)
            if array is None:
                views[role] = self._readable(value, op)
            elif role == "x" and opcode in _WINDOWS:
                # Padding follows the tile of what a window reads: a constant map is read as any other.
                views[role] = self.dense_source(value, op)
            else:
                held[role] = array
        result = out or self.placement.view(op.results[0])
        name = "dst" if opcode in ("COPY", "FILL") else "out"
        self.nodes.append(
            Node(opcode, unit, layer_name(op), views, {name: result}, params or {}, held, op.name, macs=macs)
        )

    def _readable(self, value: SSAValue, op: Operation) -> TensorView:
        """A view that a compute unit can read: dense along its last axis, copied if it is not."""
        view = self.placement.view(value)
        if view.has_dense_rows:
            return view
        copy = self.placement.new(value, "activation")
        self.nodes.append(Node("COPY", "TRANS", layer_name(op), {"src": view}, {"dst": copy}, {}, {}, op.name))
        return copy

    def widened(self, value: SSAValue, zero_point: int, op: Operation) -> TensorView:
        """An int8 value as int16, its zero point taken off."""
        view = self.placement.new(value, "activation", dtype="i16")
        params = {"multiplier": 1 << 14, "shift": 14, "zp_in": zero_point, "zp_out": 0, "low": -(1 << 15)}
        params |= {"high": (1 << 15) - 1}
        reads = {"x": self._readable(value, op)}
        self.nodes.append(Node("RESCALE", "VAE", layer_name(op), reads, {"out": view}, params, {}, op.name))
        return view

    def copy(self, op: Operation, source: TensorView, target: TensorView) -> None:
        """Add a copy."""
        self.nodes.append(Node("COPY", "TRANS", layer_name(op), {"src": source}, {"dst": target}, {}, {}, op.name))

    def dense_source(self, value: SSAValue, op: Operation) -> TensorView:
        """The view of a value or, for a constant, of a storage that it is filled into."""
        array = self.array(value)
        if array is None:
            return self.placement.view(value)
        view = self.placement.view(value)
        if not any(v is view for n in self.nodes for v in n.writes.values()):
            self.nodes.append(Node("COPY", "TRANS", layer_name(op), {}, {"dst": view}, {}, {"src": array}, op.name))
        return view


def _scalar(values: npt.NDArray[Any] | None) -> int:
    return 0 if values is None else int(values[0])


def _conv(low: _Lowering, op: q.Conv2dOp) -> None:
    values = op.values
    weight = low.array(op.weight)
    bias = None if op.bias is None else low.array(op.bias)
    if weight is None or (op.bias is not None and bias is None):
        where = f"layer '{layer_name(op)}'"
        raise BackendError(12, "weight or bias is not constant", where=where, lever="fold constants first")
    zp = op.zero_points
    element = quantized_element(op.input.type)
    folded = folded_bias(weight, bias, zp[0])
    constants: Constants = {"weight": weight, "bias": folded.astype(np.int32 if element.bits == 8 else np.int64)}
    channels = weight.shape[0]
    if values["float_type"] is not None:
        constants["multiplier"] = np.broadcast_to(op.grid.scale_array, channels).astype(np.float32)
    elif values["multiplier"] is not None:
        constants["multiplier"] = np.broadcast_to(values["multiplier"], channels).astype(np.int32)
        constants["shift"] = np.broadcast_to(values["shift"], channels).astype(np.int8)
    top, left, bottom, right = values["pad"]
    params = {
        "kernel_h": weight.shape[1],
        "kernel_w": weight.shape[2],
        "stride_h": values["stride"][0],
        "stride_w": values["stride"][1],
        "pad_top": top,
        "pad_left": left,
        "pad_bottom": bottom,
        "pad_right": right,
        "dilation_h": values["dilation"][0],
        "dilation_w": values["dilation"][1],
        "groups": values["groups"],
        "weight_bits": 8 * weight.dtype.itemsize,
        "pad_value": zp[0],
        "zp_out": op.grid.zero_point if values["multiplier"] is not None else 0,
        "low": values["low"],
        "high": values["high"],
    }
    reads: dict[str, SSAValue] = {"x": op.input}
    if op.residual is not None:
        reads["residual"] = op.residual
        params |= {
            "residual_zp": zp[3],
            "residual_multiplier": _scalar(values["residual_multiplier"]),
            "residual_shift": _scalar(values["residual_shift"]),
            "output_multiplier": _scalar(values["output_multiplier"]),
            "output_shift": _scalar(values["output_shift"]),
        }
    macs = prod(shape_of(op.output.type)) * prod(weight.shape[1:])
    low.add("CONV", "TAE", op, reads, None, params, constants, macs)


def _result(op: Any) -> dict[str, int | float]:
    values = op.values
    return {
        "multiplier": _scalar(values["multiplier"]),
        "shift": _scalar(values["shift"]),
        "zp_out": op.grid.zero_point,
        "low": values.get("low", op.grid.limits[0]),
        "high": values.get("high", op.grid.limits[1]),
    }


def _matmul(low: _Lowering, op: q.MatmulOp) -> None:
    macs = prod(shape_of(op.output.type)) * shape_of(op.lhs.type)[-1]
    reads: dict[str, SSAValue | TensorView] = {"a": op.lhs, "b": op.rhs}
    constants: Constants = {}
    zero_points = dict(zip(reads, op.zero_points, strict=True))
    narrow = {role for role, value in zip(reads, op.operands, strict=True) if dtype_of(value) == "i8"}
    for role in narrow if len(narrow) == 1 else ():
        # The engine takes matrices of one width.
        value, zero_point = op.lhs if role == "a" else op.rhs, zero_points[role]
        array = low.array(value)
        zero_points[role] = 0
        if array is None:
            reads[role] = low.widened(value, zero_point, op)
        else:
            del reads[role]
            constants[role] = array.astype(np.int16) - np.int16(zero_point)
    params: dict[str, int | float] = {f"zp_{role}": zero_point for role, zero_point in zero_points.items()}
    params |= _result(op) if op.float_type is None else {"scale": op.grid.scale}
    low.add("MATMUL", "TAE", op, reads, None, params, constants, macs)


def _sum(low: _Lowering, op: q.AddOp | q.SubOp) -> None:
    values, (a, b) = op.values, op.zero_points
    params = _result(op) | {
        "zp_a": a,
        "multiplier_a": _scalar(values["lhs_multiplier"]),
        "shift_a": _scalar(values["lhs_shift"]),
        "zp_b": b,
        "multiplier_b": _scalar(values["rhs_multiplier"]),
        "shift_b": _scalar(values["rhs_shift"]),
    }
    low.add("ADD" if isinstance(op, q.AddOp) else "SUB", "VAE", op, {"a": op.lhs, "b": op.rhs}, None, params)


def _mul(low: _Lowering, op: q.MulOp) -> None:
    a, b = op.zero_points
    low.add("MUL", "VAE", op, {"a": op.lhs, "b": op.rhs}, None, {"zp_a": a, "zp_b": b} | _result(op))


def _extremum(low: _Lowering, op: f.MaximumOp | f.MinimumOp) -> None:
    low.add("MAXIMUM" if isinstance(op, f.MaximumOp) else "MINIMUM", "VAE", op, {"a": op.lhs, "b": op.rhs})


def _clamp(low: _Lowering, op: q.ClampOp) -> None:
    low.add("CLAMP", "VAE", op, {"x": op.input}, None, {"low": op.values["low"], "high": op.values["high"]})


def _rescale(low: _Lowering, op: q.RescaleOp) -> None:
    constants: Constants = {}
    params = _result(op) | {"zp_in": op.zero_points[0]}
    if op.values["multiplier"].size > 1:
        constants = {"multiplier": op.values["multiplier"], "shift": op.values["shift"]}
        params |= {"multiplier": 0, "shift": 2}
    low.add("RESCALE", "VAE", op, {"x": op.input}, None, params, constants)


def _table(low: _Lowering, op: q.TableOp) -> None:
    low.add("TABLE8", "VAE", op, {"x": op.input, "table": op.table})


def _interpolate(low: _Lowering, op: q.InterpolateOp) -> None:
    low.add("TABLE16", "VAE", op, {"x": op.input, "table": op.table}, None, _result(op))


def _segmented(low: _Lowering, op: q.SegmentedOp) -> None:
    reads = {"x": op.input, "starts": op.starts, "spacings": op.spacings, "entries": op.entries}
    low.add("SEGMENTED", "VAE", op, reads)


def _axes(axes: Any) -> int:
    return sum(1 << axis for axis in axes)


def _kept(low: _Lowering, op: Any) -> TensorView:
    """The result with its reduced axes kept as extents of 1, as the unit has them."""
    view = low.placement.view(op.results[0])
    if op.values["keep"]:
        return view
    size = DTYPES[view.dtype].itemsize
    axes, rest = set(op.values["axes"]), iter(zip(view.shape, view.strides, strict=True))
    pairs = [(1, size) if axis in axes else next(rest) for axis in range(len(shape_of(op.input.type)))]
    return TensorView(view.storage, view.offset, tuple(n for n, _ in pairs), tuple(s for _, s in pairs), view.dtype)


def _reduce_sum(low: _Lowering, op: q.ReduceSumOp) -> None:
    params = _result(op) | {"zp_in": op.zero_points[0]}
    if not op.values["axes"]:
        low.add("RESCALE", "VAE", op, {"x": op.input}, None, params)
        return
    params |= {"axes": _axes(op.values["axes"])}
    low.add("REDUCE_SUM", "VAE", op, {"x": op.input}, _kept(low, op), params)


def _softmax(low: _Lowering, op: q.SoftmaxOp) -> None:
    reads = {"x": op.input, "exp_table": op.exp_table, "reciprocal_table": op.reciprocal_table}
    low.add("SOFTMAX", "VAE", op, reads, None, _result(op) | {"axis": op.values["axis"]})


def _window(kernel: Any, stride: Any, pad: Any) -> dict[str, int | float]:
    names = ("kernel_h", "kernel_w", "stride_h", "stride_w", "pad_top", "pad_left", "pad_bottom", "pad_right")
    return dict(zip(names, (*kernel, *stride, *pad), strict=True))


def _max_pool(low: _Lowering, op: f.MaxPoolOp) -> None:
    from hbir.dialects.hbir.pool import full_pad

    values = op.values
    pad = full_pad(shape_of(op.input.type), values["kernel"], values["stride"], values["pad"], values["ceil"])
    low.add("MAXPOOL", "AAE", op, {"x": op.input}, None, _window(values["kernel"], values["stride"], pad))


def _avg_pool(low: _Lowering, op: q.AvgPoolOp) -> None:
    values, element = op.values, quantized_element(op.input.type)
    zp, (lowest, highest) = element.zero_point, element.limits
    params = _window(values["kernel"], values["stride"], values["pad"])
    low.add(
        "AVGPOOL",
        "AAE",
        op,
        {"x": op.input},
        None,
        params | {"zp_in": zp, "zp_out": zp, "low": lowest, "high": highest},
    )


def _nearest(low: _Lowering, op: f.ResizeNearestOp) -> None:
    constants = {key: np.asarray(op.values[key], np.int32) for key in ("rows", "columns")}
    low.add("RESIZE_NEAREST", "AAE", op, {"x": op.input}, None, {}, constants)


def _bilinear(low: _Lowering, op: q.ResizeBilinearOp) -> None:
    values = op.values
    yn, yd, xn, xd = values["scale"]
    params = _result(op) | {"zp_in": op.zero_points[0], "scale_yn": yn, "scale_yd": yd, "scale_xn": xn, "scale_xd": xd}
    for key in ("offset", "border"):
        params |= {f"{key}_y": values[key][0], f"{key}_x": values[key][1]}
    low.add("RESIZE_BILINEAR", "AAE", op, {"x": op.input}, None, params)


def _quantize(low: _Lowering, op: q.QuantizeOp) -> None:
    smallest, largest = op.grid.limits
    params = {"scale": op.grid.scale, "zp": op.grid.zero_point, "low": smallest, "high": largest}
    low.add("QUANTIZE", "VPU", op, {"x": op.input}, None, params)


def _dequantize(low: _Lowering, op: q.DequantizeOp) -> None:
    if op.grid.per_axis is None:
        low.add("DEQUANTIZE", "VPU", op, {"x": op.input}, None, {"scale": op.grid.scale, "zp": op.grid.zero_point})
    else:
        low.add("DEQUANTIZE", "VPU", op, {"x": op.input}, None, {"zp": 0}, {"scales": op.grid.scale_array})


def _argmax(low: _Lowering, op: f.ArgmaxOp) -> None:
    axis, view = op.values["axis"], low.placement.view(op.output)
    if op.values["keep"]:
        # The unit's result does not have the axis.
        shape, strides = (tuple(n for i, n in enumerate(of) if i != axis) for of in (view.shape, view.strides))
        view = TensorView(view.storage, view.offset, shape, strides, view.dtype)
    low.add("ARGMAX", "SPU", op, {"x": op.input}, view, {"axis": axis})


def _reduce(low: _Lowering, op: f.ReduceOp) -> None:
    if not op.values["axes"]:
        low.copy(op, low.dense_source(op.input, op), low.placement.view(op.output))
        return
    opcode = "REDUCE_MAX" if op.values["kind"] == "max" else "REDUCE_MIN"
    low.add(opcode, "VAE", op, {"x": op.input}, _kept(low, op), {"axes": _axes(op.values["axes"])})


def _transpose(low: _Lowering, op: f.TransposeOp) -> None:
    source = low.dense_source(op.input, op)
    order: tuple[int, ...] = op.values["permutation"]
    moved = TensorView(
        source.storage,
        source.offset,
        tuple(source.shape[a] for a in order),
        tuple(source.strides[a] for a in order),
        source.dtype,
    )
    low.copy(op, moved, low.placement.view(op.output))


def _expand(low: _Lowering, op: f.ExpandOp) -> None:
    source, shape = low.dense_source(op.input, op), shape_of(op.output.type)
    missing = len(shape) - len(source.shape)
    strides = [0] * missing + [0 if n == 1 else s for n, s in zip(source.shape, source.strides, strict=True)]
    low.copy(
        op,
        TensorView(source.storage, source.offset, shape, tuple(strides), source.dtype),
        low.placement.view(op.output),
    )


def _pad(low: _Lowering, op: f.PadOp) -> None:
    target = low.placement.view(op.output)
    low.add("FILL", "TRANS", op, {}, target, {"value": int(op.values["value"])})
    source = low.dense_source(op.input, op)
    low.copy(op, source, target.part(op.values["before"], source.shape))


def _reshape(low: _Lowering, op: f.ReshapeOp) -> None:
    views, source = low.placement.views, low.dense_source(op.input, op)
    shape = shape_of(op.output.type)
    alias = reshaped(source, shape)
    wanted = views.get(op.output)
    if wanted is None and alias is not None:
        views[op.output] = alias
        return
    if wanted is not None and alias is not None and alias.same_bytes(wanted):
        return
    target = low.placement.view(op.output)
    if alias is not None:
        low.copy(op, alias, target)
        return
    back = reshaped(target, source.shape)
    if back is not None:
        low.copy(op, source, back)
        return
    dense = low.placement.new(op.input, "activation")
    low.copy(op, source, dense)
    again = reshaped(dense, shape)
    if again is not None:
        low.copy(op, again, target)


def _slice(low: _Lowering, op: f.SliceOp) -> None:
    view = sliced(low.dense_source(op.input, op), op)
    wanted = low.placement.views.get(op.output)
    if wanted is None:
        low.placement.views[op.output] = view
    else:
        low.copy(op, view, wanted)


def _concat(low: _Lowering, op: f.ConcatOp) -> None:
    target = low.placement.view(op.output)
    for value, part in low.placement.concat_parts(op, target):
        source = low.dense_source(value, op)
        if not source.same_bytes(part):
            low.copy(op, source, part)


_MOVES: dict[type[Operation], Callable[[_Lowering, Any], None]] = {
    f.ConcatOp: _concat,
    f.ExpandOp: _expand,
    f.PadOp: _pad,
    f.ReshapeOp: _reshape,
    f.SliceOp: _slice,
    f.TransposeOp: _transpose,
}

_UNITS: dict[type[Operation], Callable[[_Lowering, Any], None]] = {
    f.ArgmaxOp: _argmax,
    f.MaximumOp: _extremum,
    f.MaxPoolOp: _max_pool,
    f.MinimumOp: _extremum,
    f.ReduceOp: _reduce,
    f.ResizeNearestOp: _nearest,
    q.AddOp: _sum,
    q.AvgPoolOp: _avg_pool,
    q.ClampOp: _clamp,
    q.Conv2dOp: _conv,
    q.DequantizeOp: _dequantize,
    q.InterpolateOp: _interpolate,
    q.MatmulOp: _matmul,
    q.MulOp: _mul,
    q.QuantizeOp: _quantize,
    q.ReduceSumOp: _reduce_sum,
    q.RescaleOp: _rescale,
    q.ResizeBilinearOp: _bilinear,
    q.SegmentedOp: _segmented,
    q.SoftmaxOp: _softmax,
    q.SubOp: _sum,
    q.TableOp: _table,
}


def supported_operations() -> frozenset[type[Operation]]:
    """The operation classes that units run; limits of a march may still send one of them to the host."""
    return frozenset({*_MOVES, *_UNITS})


def _host_reason(op: Operation, march: March) -> str:
    """Why an operation runs on the host, or empty when a unit does it."""
    if type(op) in _MOVES:
        if isinstance(op, f.PadOp) and (op.values["mode"] != "constant" or dtype_of(op.output)[0] == "f"):
            return "units pad integers with a constant only"
        return "" if len(shape_of(op.results[0].type)) <= 6 else "units move tensors of at most six axes"
    if type(op) not in _UNITS:
        return f"{op.name} has no integer form" if op.name.startswith("hbir.") else f"no unit runs {op.name}"
    if isinstance(op, f.MaxPoolOp | f.MaximumOp | f.MinimumOp | f.ReduceOp | f.ResizeNearestOp | f.ArgmaxOp):
        if dtype_of(op.operands[0]) not in ("i8", "i16"):
            return f"units work on int8 and int16, not on {dtype_of(op.operands[0])}"
        if isinstance(op, f.ReduceOp) and op.values["kind"] not in ("max", "min"):
            return f"no unit reduces by '{op.values['kind']}'"
    if isinstance(op, q.Conv2dOp | q.MatmulOp):
        return engine_reason(op, march)
    if isinstance(op, f.MaxPoolOp | q.AvgPoolOp) and max(op.values["kernel"]) > march.max_pool_kernel:
        return f"pooling windows reach {march.max_pool_kernel}"
    return ""


def _host(low: _Lowering, op: HbOperation, reason: str) -> None:
    """One function for the host section, and a call of it on whole tensors in DDR."""
    values = [value for value in dict.fromkeys(op.operands) if low.array(value) is None]
    if len(values) + len(op.results) > MAX_OPERANDS:
        raise BackendError(
            13,
            f"{op.name} has {len(values)} operands, a host call takes {MAX_OPERANDS - 1}",
            where=f"layer '{layer_name(op)}'",
            lever="split the operation",
        )
    block = Block(arg_types=[value.type for value in values])
    mapping: dict[SSAValue, SSAValue] = dict(zip(values, block.args, strict=True))
    for value in dict.fromkeys(op.operands):
        if value not in mapping and isinstance(value.owner, Operation):
            copied = value.owner.clone()
            block.add_op(copied)
            mapping[value] = copied.results[0]
    clone = op.clone(mapping)
    block.add_ops([clone, ReturnOp(*clone.results)])
    types = ([value.type for value in values], [result.type for result in clone.results])
    index = len(low.host)
    low.host.append(FuncOp(f"host_{index}", types, Region(block)))
    reads = {f"operand{i}": low.placement.view(value) for i, value in enumerate(values)}
    writes = {f"operand{len(values) + i}": low.placement.view(result) for i, result in enumerate(op.results)}
    params = {"function": index, "inputs": len(values)}
    low.nodes.append(Node("HOST_CALL", "HOST", layer_name(op), reads, writes, params, {}, op.name, reason))


def _host_section(functions: list[FuncOp], store: ConstantStore) -> tuple[str, dict[str, memoryview]]:
    if not functions:
        return "", {}
    module = ModuleOp(list(functions))
    blobs = {blob.digest.data for blob in used_blobs(module)}
    return print_module(module), store.subset(blobs)


def _check_ranks(ops: list[HbOperation]) -> None:
    for op in ops:
        rank = max(len(shape_of(value.type)) for value in (*op.operands, *op.results))
        if rank > MAX_RANK:
            raise BackendError(
                17,
                f"{op.name} works on a tensor of {rank} axes",
                where=f"layer '{layer_name(op)}'",
                why=f"an instruction addresses {MAX_RANK} axes",
                lever="join axes by a reshape in the model",
            )


def lower(module: Module, march: March) -> UnitGraph:
    """Lower the only function of a quantised module. Raises BackendError HB0513 to HB0517 for one that no binary can hold."""
    if len(module.functions) != 1:
        raise BackendError(
            14, f"the module has {len(module.functions)} functions", lever="compile one function at a time, then link"
        )
    function = module[0]
    ops = [op for op in function.operations if isinstance(op, HbOperation) and not isinstance(op, f.ConstantOp)]
    left = next((op for op in ops if op.name.startswith("qat.") or op.name == "quantized.function"), None)
    if left is not None:
        raise BackendError(
            15,
            f"{left.name} is left in the module",
            where=f"layer '{layer_name(left)}'",
            lever="run passes.convert first",
        )
    if module.march is None and not any(op.name.startswith("quantized.") for op in ops):
        raise BackendError(
            16,
            "the module is float",
            why="no unit of the march works on it: everything would run on the host",
            lever="run passes.calibrate and passes.convert first",
        )
    _check_ranks(ops)
    reasons = {op: reason for op in ops if (reason := _host_reason(op, march))}
    placement = Placement(function)
    for op in reasons:
        placement.pinned.update(value for value in (*op.operands, *op.results))
    outputs = placement.plan_backwards()
    inputs: list[tuple[str, TensorView]] = []
    for argument in function.flatten_inputs:
        view = placement.new(argument.value, "input", argument.name)
        placement.views[argument.value] = view
        inputs.append((argument.name, view))
    low = _Lowering(function, module.constants, march, placement)
    for op in ops:
        if op in reasons:
            _host(low, op, reasons[op])
        else:
            (_MOVES.get(type(op)) or _UNITS[type(op)])(low, op)
    for (_, view), argument in zip(outputs, function.flatten_outputs, strict=True):
        # An input or a constant that is an output, or one value for two outputs.
        source = low.dense_source(argument.value, function.return_op)
        if not source.same_bytes(view):
            low.copy(function.return_op, source, view)
    text, constants = _host_section(low.host, module.constants)
    # What the host reads and writes may be a view of a storage that was made for another value.
    called = {v.storage for n in low.nodes if n.unit == "HOST" for v in (*n.reads.values(), *n.writes.values())}
    storages = tuple(replace(s, pinned=s.pinned or i in called) for i, s in enumerate(placement.storages))
    graph = UnitGraph(function.name, storages, tuple(low.nodes), tuple(inputs), tuple(outputs), text, constants)
    graph.verify()
    return graph
