"""Runs the finished binary on real samples beside the float network: does it compute what it should, and how well?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from xdsl.ir import Operation

from hbir.dialects.base import tensor_type
from hbir.dialects.quant import UniformQuantizedType
from hbir.errors import CalibrationError, SimulationError
from hbir.ir.locations import layer_name
from hbir.module import Function, Module
from tools.refusals import SampleRefusal

__all__ = ["Accuracy", "Agreement", "Binary", "EvaluationResult", "cosine", "evaluate", "layer_cosines"]

Array = npt.NDArray[Any]
Feed = Mapping[str, Array]


class Binary(Protocol):
    """A compiled function; `backends.Hbm(path)[0]` is one."""

    def feed(self, inputs: Feed, /) -> Feed:
        """Named outputs for named inputs."""
        ...


@dataclass(frozen=True, slots=True)
class Agreement:
    """One output, binary against float: mean and smallest cosine over the samples, largest absolute difference."""

    output: str
    cosine: float
    worst_cosine: float
    max_error: float
    reach: float
    """Largest absolute value of the float output, to judge the error by."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Samples whose first output is largest at the label."""

    samples: int
    float_correct: int | None
    binary_correct: int


@dataclass(frozen=True)
class EvaluationResult:
    """`source` is "evaluation" or "calibration", the data that was used."""

    source: str
    samples: int
    agreements: tuple[Agreement, ...]
    accuracy: Accuracy | None


def cosine(a: Array, b: Array) -> float:
    """Cosine of the angle between two arrays; 1 for two zero arrays, 0 when only one is zero."""
    x, y = a.reshape(-1).astype(np.float64), b.reshape(-1).astype(np.float64)
    lengths = float(np.linalg.norm(x) * np.linalg.norm(y))
    if lengths == 0:
        return float(not x.any() and not y.any())
    return float(min(max(float(x @ y) / lengths, -1.0), 1.0))


def _same(a: Array, b: Array) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def _check_exact(expected: Feed, actual: Feed) -> None:
    for name, value in expected.items():
        if not _same(value, actual[name]):
            raise SimulationError(
                40,
                f"the binary and the quantised module differ in output '{name}'",
                why=f"{int((value != actual[name]).sum())} of {value.size} values are not equal",
                lever="report it with the model: both must agree bit for bit; --skip compile still writes the quantised module",
            )


@dataclass
class _Sums:
    cosines: list[float]
    error: float = 0.0
    reach: float = 0.0


def _class_of(outputs: Feed, label: int, where: int) -> bool:
    first = next(iter(outputs.values())).reshape(-1)
    if label >= first.size:
        raise CalibrationError(
            *(
                SampleRefusal.LABELS,
                f"label {label} of sample {where} is beyond the {first.size} values of the first output",
            ),
            lever="check the labels, or leave them out",
        )
    return int(np.argmax(first)) == label


def evaluate(
    binary: Binary,
    quantized: Function,
    reference: Function | None,
    feeds: Iterable[Feed],
    *,
    source: str,
    total: int,
    labels: Sequence[int] | npt.NDArray[np.int64] | None = None,
    advance: Callable[[float], None] = lambda _: None,
) -> EvaluationResult:
    """Run every feed through the binary and the float `reference`, and compare.

    On the first sample the binary must equal the quantised module exactly. Raises SimulationError HB0740 when it does not,
    CalibrationError HB0427 for a label that no output has.
    """
    prepared = reference.prepare() if reference is not None else None
    names = [a.name for a in reference.flatten_outputs] if reference is not None else []
    inputs = [a.name for a in reference.flatten_inputs] if reference is not None else []
    sums = {name: _Sums([]) for name in names}
    done = float_correct = binary_correct = 0
    for feed in feeds:
        actual = binary.feed(feed)
        if not done:
            _check_exact(quantized.feed(feed), actual)
        if labels is not None:
            binary_correct += _class_of(actual, int(labels[done]), done)
        if prepared is not None:
            expected = dict(zip(names, prepared.run([feed[name] for name in inputs]), strict=True))
            if labels is not None:
                float_correct += _class_of(expected, int(labels[done]), done)
            for name, value in expected.items():
                got, entry = actual[name].astype(np.float64), sums[name]
                entry.cosines.append(cosine(value, got))
                entry.error = max(entry.error, float(np.abs(value - got).max(initial=0)))
                entry.reach = max(entry.reach, float(np.abs(value).max(initial=0)))
        done += 1
        advance(done / total)
    agreements = tuple(
        Agreement(name, float(np.mean(s.cosines)), min(s.cosines), s.error, s.reach)
        for name, s in sums.items()
        if s.cosines
    )
    accuracy = (
        Accuracy(done, float_correct if prepared is not None else None, binary_correct) if labels is not None else None
    )
    return EvaluationResult(source, done, agreements, accuracy)


def _layer_values(module: Module, feed: Feed) -> dict[str, Array]:
    """The last result of every layer, dequantised."""
    found: dict[str, Array] = {}

    def hook(op: Operation, results: Sequence[Array]) -> None:
        element = tensor_type(op.results[0].type).element_type
        array = np.asarray(results[0])
        if isinstance(element, UniformQuantizedType):
            scale, zero = (element.scale, element.zero_point)
            if element.per_axis is not None:
                extent = [1] * array.ndim
                extent[element.per_axis] = -1
                scale, zero = element.scale_array.reshape(extent), 0
            found[layer_name(op)] = (array.astype(np.float64) - zero) * scale
        elif array.dtype.kind == "f":
            # A copy: what a hook sees belongs to the interpreter.
            found[layer_name(op)] = np.array(array)

    module[0].feed(feed, hook)
    return found


def layer_cosines(optimised: Module, quantized: Module, feed: Feed) -> dict[str, float]:
    """Cosine by layer between the optimised float network and the quantised one on one sample.

    Layers that only one of the two has, or that lie differently in it, are left out.
    """
    expected, actual = _layer_values(optimised, feed), _layer_values(quantized, feed)
    return {
        name: cosine(expected[name], value)
        for name, value in actual.items()
        if name in expected and expected[name].shape == value.shape
    }
