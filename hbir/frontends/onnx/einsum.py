"""Einsum of one or two operands as reductions, transposes and one product; a known matrix makes a linear layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import count
from typing import Any

import numpy as np

from hbir.dialects.hbir import LinearOp, MatmulOp, MulOp, ReduceOp, ReshapeOp, TransposeOp
from hbir.errors import ImportModelError
from hbir.frontends.onnx.node import Node
from hbir.frontends.onnx.registry import converts
from hbir.frontends.onnx.values import Static, Value, value_shape

__all__: list[str] = []

Labels = tuple[str, ...]

_NUMPY: Any = np


def _unsupported(node: Node, equation: str, why: str) -> ImportModelError:
    return node.unsupported("equation", equation, why, "write it with matmul, transpose and sum")


def _labels(node: Node, equation: str, term: str, rank: int) -> Labels:
    """One label for each axis of an operand; axes behind `...` are numbered from the right, so that they broadcast."""
    head, dots, tail = term.partition("...")
    letters = head + tail
    free = rank - len(letters)
    if not all(letter.isalpha() for letter in letters) or free < 0 or (free and not dots):
        raise _unsupported(node, equation, f"'{term}' does not fit an operand of rank {rank}")
    if len(set(letters)) != len(letters):
        raise _unsupported(node, equation, f"'{term}' takes a diagonal")
    return (*head, *(f".{free - 1 - at}" for at in range(free)), *tail)


def _parsed(node: Node, equation: str, ranks: Sequence[int]) -> tuple[list[Labels], Labels]:
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks) or len(terms) > 2:
        raise _unsupported(
            node, equation, f"it has {len(terms)} terms for {len(ranks)} operands; one or two are supported"
        )
    inputs = [_labels(node, equation, term, rank) for term, rank in zip(terms, ranks, strict=True)]
    every = [label for labels in inputs for label in labels]
    dotted = sorted({label for label in every if label[0] == "."}, key=lambda label: -int(label[1:]))
    if arrow:
        output = _labels(node, equation, right, len(right.replace("...", "")) + len(dotted) * ("..." in right))
    else:
        output = (*dotted, *sorted(label for label in set(every) if label[0] != "." and every.count(label) == 1))
    if not set(output) <= set(every):
        raise _unsupported(node, equation, "its result has a letter that no operand has")
    return inputs, output


def _transposed(node: Node, x: Value, labels: Labels, wanted: Labels) -> Value:
    order = tuple(labels.index(label) for label in wanted)
    return x if order == tuple(range(len(order))) else node.emit(TransposeOp, x, permutation=order)


def _reshaped(node: Node, x: Value, shape: Sequence[int]) -> Value:
    return x if value_shape(x) == tuple(shape) else node.emit(ReshapeOp, x, shape=tuple(shape))


def _summed(node: Node, x: Value, labels: Labels, kept: set[str]) -> tuple[Value, Labels]:
    axes = tuple(at for at, label in enumerate(labels) if label not in kept)
    rest = tuple(label for label in labels if label in kept)
    return (node.emit(ReduceOp, x, kind="sum", axes=axes, keep=False) if axes else x), rest


def _extents(node: Node, equation: str, operands: Sequence[tuple[Value, Labels]]) -> dict[str, int]:
    extents: dict[str, int] = {}
    for value, labels in operands:
        for label, extent in zip(labels, value_shape(value), strict=True):
            if extents.setdefault(label, extent) != extent:
                raise _unsupported(node, equation, f"one axis has the extents {extents[label]} and {extent}")
    return extents


def _product(node: Node, a: tuple[Value, Labels], b: tuple[Value, Labels], output: Labels) -> tuple[Value, Labels]:
    """Product of two operands whose labels are shared or in `output`, with the labels of the result."""
    if isinstance(a[0], Static):
        a, b = b, a
    (x, xs), (y, ys) = a, b
    shared = tuple(label for label in xs if label in ys)
    summed = tuple(label for label in shared if label not in output)
    batch = tuple(label for label in shared if label in output)
    rows, columns = (tuple(label for label in labels if label not in shared) for labels in (xs, ys))
    extents = dict(zip((*xs, *ys), (*value_shape(x), *value_shape(y)), strict=True))

    def shape(*labels: Labels) -> list[int]:
        return [extents[label] for group in labels for label in group]

    result = (*batch, *rows, *columns)
    x, y = _transposed(node, x, xs, (*batch, *rows, *summed)), _transposed(node, y, ys, (*batch, *summed, *columns))
    if not summed:
        x = _reshaped(node, x, shape(batch, rows) + [1] * len(columns))
        return node.emit(MulOp, x, _reshaped(node, y, shape(batch) + [1] * len(rows) + shape(columns))), result
    depth, width = math.prod(shape(summed)), math.prod(shape(columns))
    if isinstance(y, Static) and not batch:
        matrix = node.emit(TransposeOp, _reshaped(node, y, (depth, width)), permutation=(1, 0))
        x = _reshaped(node, x, [*shape(rows), depth] if rows else [1, depth])
        z = node.emit(LinearOp, x, matrix, None, min=None, max=None)
    else:
        x = _reshaped(node, x, [*shape(batch), math.prod(shape(rows)), depth])
        z = node.emit(MatmulOp, x, _reshaped(node, y, [*shape(batch), depth, width]))
    return _reshaped(node, z, shape(result)), result


@converts("Einsum")
def einsum_v12(node: Node) -> Value:
    """A sum of products named by letters, of at most two operands and without diagonals."""
    equation = node.text("equation", "").replace(" ", "")
    values = [node.real(index) for index in range(len(node.operands()))]
    inputs, output = _parsed(node, equation, [len(value_shape(value)) for value in values])
    operands = list(zip(values, inputs, strict=True))
    _extents(node, equation, operands)
    known = [value.array for value in values if isinstance(value, Static) and value.grid is None]
    if len(known) == len(values):
        numbers: dict[str, int] = {}
        following = count()
        listed = [[numbers.setdefault(label, next(following)) for label in labels] for labels in (*inputs, output)]
        pairs = [part for pair in zip(known, listed[:-1], strict=True) for part in pair]
        return node.known(_NUMPY.einsum(*pairs, listed[-1]), known[0].dtype)
    for at, (value, labels) in enumerate(operands):
        others = {label for index, other in enumerate(inputs) if index != at for label in other}
        operands[at] = _summed(node, value, labels, others | set(output))
    value, labels = operands[0] if len(operands) == 1 else _product(node, operands[0], operands[1], output)
    return _transposed(node, value, labels, output)
