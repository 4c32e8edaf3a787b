"""The refusals of the ONNX reader: each has one number, never used for anything else."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from hbir.errors import ImportModelError
from hbir.ir.limits import MOST_AXES

__all__ = ["Refusal", "check_axes"]


class Refusal(IntEnum):
    """The last two digits of an HB01xx code."""

    FILE = 1  # the file is missing or cannot be read
    NOT_A_MODEL = 2  # truncated, garbage, or text that is not UTF-8
    NO_GRAPH = 3  # no graph, or a graph without outputs
    TOO_LARGE_FILE = 4  # beyond what protobuf can hold
    OPSET = 5  # the model's opset is missing, below 7 or above 26
    IR_VERSION = 6  # the model's IR version is unknown
    DUPLICATE_NAME = 7  # two tensors with one name
    UNDEFINED_NAME = 8  # a tensor that nothing defines before its use
    CYCLE = 9  # a node that needs its own result
    UNKNOWN_OPERATOR = 10
    UNKNOWN_DOMAIN = 11
    OPERATOR_VERSION = 12  # the operator does not exist in the model's opset
    ATTRIBUTE = 13  # a missing, malformed, unknown or unsupported attribute
    CONTROL_FLOW = 14  # subgraphs and recurrent layers
    OPERANDS = 15  # too few or too many operands or results
    RANK = 16  # an operand of an unsupported rank
    SHAPE = 17  # operands that do not fit together
    ELEMENT_TYPE = 18  # an element type that has no place in the float graph
    DATA_DEPENDENT = 19  # a shape or parameter that depends on the data
    DYNAMIC_INPUT = 20  # an input with an unknown extent
    INPUT_SHAPES = 21  # `input_shapes` that contradict the model
    TOO_LARGE_TENSOR = 22
    INPUT_KIND = 23  # an input that is no tensor
    OPTION = 24  # an argument of `export` of the wrong kind
    NOT_FINITE = 30  # NaN or infinity among the weights
    TENSOR_SIZE = 31  # a tensor whose data does not fill its shape
    TENSOR_TYPE = 32  # a tensor of strings, float8 and the like; sparse and segmented tensors
    EXTERNAL_ESCAPES = 40  # external data outside the model's folder
    EXTERNAL_SYMLINK = 41
    EXTERNAL_MISSING = 42
    EXTERNAL_RANGE = 43  # offset or length that do not fit the file or the tensor
    EXTERNAL_FOLDER = 44  # external data without a model file to look beside
    SCALE = 50  # a quantisation scale or zero point that means nothing
    GRID_MISMATCH = 51  # DequantizeLinear with another scale than its QuantizeLinear
    INTEGER_DATA = 52  # quantised integers used without DequantizeLinear


def check_axes(shape: Sequence[int], where: str = "") -> None:
    """Raise ImportModelError HB0122 for a shape of more axes than an array can have."""
    if len(shape) > MOST_AXES:
        raise ImportModelError(
            Refusal.TOO_LARGE_TENSOR,
            f"a tensor of {len(shape)} axes is too large",
            where=where,
            why=f"the limit is {MOST_AXES} axes",
            lever="check the model's shapes; this one is probably damaged",
        )
