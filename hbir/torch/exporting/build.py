"""Makes a module of calls: float operations with fake quantisation, which `passes.convert` turns into integers."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Sequence
from typing import Any, cast

import torch
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, FunctionType, ModuleOp, StringAttr, f32
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Region, SSAValue

from hbir.dialects.base import tensor
from hbir.frontends.onnx.builder import Builder
from hbir.frontends.onnx.values import Value
from hbir.ir.constants import ConstantStore
from hbir.ir.locations import name_location
from hbir.module import NAME, Module
from hbir.torch.exporting.emitter import Emitter
from hbir.torch.operations.registry import Kind, Operation
from hbir.torch.tracing.calls import Call, Ref, enters_region, leaves_region, replaced
from hbir.torch.tracing.qtensor import batch_norm_factor

__all__ = ["build_module", "folded_weight"]


def build_module(
    name: str,
    calls: Sequence[Call],
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    leaving: Sequence[Call] | None = None,
) -> Module:
    """The module of `calls`, which are in the order they ran: its inputs are those of the calls of QuantStubs that nothing in
    the module feeds, its outputs what the calls of DeQuantStubs and PLAIN operations give, in the order of `leaving` (default:
    as they ran). `inputs` and `outputs` name them, by default `_input_0` and so on.

    Raises TrainingError HB0920 for a call that has no form.
    """
    order = [call for call in calls if leaves_region(call)] if leaving is None else leaving
    entering = sum(map(enters_region, calls))
    first = [f"_input_{number}" for number in range(entering)] if inputs is None else inputs
    second = [f"_output_{number}" for number in range(len(order))] if outputs is None else outputs
    return _Building(calls, first, second, order).run(name)


class _Building:
    def __init__(
        self, calls: Sequence[Call], inputs: Sequence[str], outputs: Sequence[str], leaving: Sequence[Call]
    ) -> None:
        self.calls, self.inputs, self.outputs, self.leaving = calls, list(inputs), list(outputs), leaving
        self.store, self.block = ConstantStore(), Block()
        self.build = Builder(self.store)
        self.values: dict[tuple[Call, int], Value] = {}
        self.results: dict[Call, SSAValue] = {}

    def run(self, name: str) -> Module:
        for call in self.calls:
            self._add(call)
        results = [self.results[call] for call in self.leaving]
        self.block.add_ops([*self.build.operations, ReturnOp(*results)])
        kind = FunctionType.from_lists([a.type for a in self.block.args], [value.type for value in results])
        function = FuncOp(
            *(name, kind, Region(self.block)), arg_attrs=_named(self.inputs), res_attrs=_named(self.outputs)
        )
        module = Module(ModuleOp([function]), self.store)
        module.verify()
        return module

    def _add(self, call: Call) -> None:
        emitter = Emitter(self.build, call)
        if call.kind == "dequant":
            self.results[call] = self.build.ssa(self._of(call.arguments[0]), emitter.location)
            return
        if call.kind == "quant":
            results: Any = self._of(call.arguments[0]) if call.arguments else self._input(call)
        else:
            results = self._converted(emitter, call)
        several = isinstance(results, tuple | list)
        many = list(cast("Sequence[Value]", results)) if several else [cast(Value, results)]
        if call.fake_quant is not None:
            many[0] = emitter.fake_quant(many[0], call.fake_quant.grid)
        for index, value in enumerate(many):
            self.values[call, index] = value
        if leaves_region(call):
            self.results[call] = self.build.ssa(many[0], emitter.location)

    def _input(self, call: Call) -> SSAValue:
        argument = self.block.insert_arg(tensor(call.shapes[0], f32), len(self.block.args))
        argument.location = name_location(self.inputs[argument.index])
        return argument

    def _of(self, ref: Ref) -> Value:
        return self.values[ref.call, ref.index]

    def _converted(self, emitter: Emitter, call: Call) -> Any:
        operation = call.operation
        if not isinstance(operation, Operation):
            raise emitter.no_form(f"'{operation}' is no operation")
        if call.folded:
            return self._of(call.arguments[0])

        numbers = itertools.count()

        def leaf(value: Any) -> Any:
            if not isinstance(value, Ref):
                return value
            fake = call.inputs.get(next(numbers))
            return self._of(value) if fake is None else emitter.fake_quant(self._of(value), fake.grid)

        args, kwargs = replaced(call.arguments, leaf), replaced(call.keywords, leaf)
        if operation.kind is Kind.WEIGHTED:
            args, kwargs = _weights(emitter, args, kwargs)
        try:
            bound = inspect.signature(operation.function).bind(emitter, *args, **kwargs)
        except TypeError as error:
            lever = "call it with fewer options"
            raise emitter.no_form(
                f"{operation.name} with these arguments has no form", why=str(error), lever=lever
            ) from None
        return operation.function(*bound.args, **bound.kwargs)


def _weights(emitter: Emitter, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Weight and bias as constants: with the batch norm folded in, on the weight's grid."""
    call = emitter.call
    names = ("input", "weight", "bias")
    named = {"bias": None, **dict(zip(names, args, strict=False)), **kwargs}
    x, weight, bias = (named.pop(name) for name in names)
    fake = call.weight_fake_quant
    if isinstance(weight, torch.Tensor):
        weight, bias = folded_weight(weight, bias, call)
        weight = emitter.weight(weight, None if fake is None else fake.grid)
    bias = None if bias is None else emitter.value(bias)
    return (x, weight, bias, *args[3:]), named


def folded_weight(
    weight: torch.Tensor, bias: torch.Tensor | None, call: Call
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight and bias with the batch norm of the call, in float32 as the fake quant of training sees the weight."""
    norm: Any = call.batch_norm
    if norm is None:
        return weight.detach(), None if bias is None else bias.detach()
    with torch.no_grad():
        factor = batch_norm_factor(norm)
        shape = [1] * weight.dim()
        axis = 0 if call.weight_fake_quant is None else call.weight_fake_quant.axis
        shape[axis] = -1
        before = torch.zeros_like(norm.running_mean) if bias is None else bias
        shift = torch.zeros_like(before) if norm.bias is None else norm.bias
        moved = (before - norm.running_mean).double() * factor.double() + shift.double()
        return weight * factor.reshape(shape), moved.float()


def _named(names: Sequence[str]) -> ArrayAttr[DictionaryAttr]:
    return ArrayAttr(DictionaryAttr({NAME: StringAttr(name)}) for name in names)
