"""Functions of one value: the operations that become lookup tables. What each function is stands in `hbir.numerics.lut`."""

from __future__ import annotations

from xdsl.dialects.builtin import DenseArrayBase, TensorType, f64
from xdsl.irdl import irdl_op_definition, operand_def, opt_prop_def, result_def, traits_def
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from hbir.dialects.base import Array, HbOperation, Tensor, not_quantized, opt_number, string
from hbir.dialects.hbir.conv import clamp

__all__ = ["ClipOp", "FunctionOp"]


@irdl_op_definition
class FunctionOp(HbOperation):
    """A named scalar function applied to every element, such as `sigmoid` or `hardsigmoid` with its parameters.

    `function` is a key of `hbir.numerics.lut.FUNCTIONS`; `parameters` are its parameters in the table's order.
    """

    name = "hbir.function"

    input = operand_def(TensorType)
    function = string()
    """Name of the function, a key of `hbir.numerics.functions.FUNCTIONS`."""
    parameters = opt_prop_def(DenseArrayBase.constr(f64))
    """Its parameters, in the order of the table; absent when it has none or all have their defaults."""
    output = result_def(TensorType)

    traits = traits_def(Pure())

    @staticmethod
    def infer(x: Tensor, *, function: str, parameters: tuple[float, ...] | None) -> Tensor:
        from hbir.numerics.lut import FUNCTIONS

        not_quantized(x)
        if function not in FUNCTIONS:
            raise VerifyException(f"there is no function '{function}'; known are {', '.join(sorted(FUNCTIONS))}")
        if len(parameters or ()) > len(FUNCTIONS[function].parameters):
            raise VerifyException(
                f"'{function}' has parameters {list(FUNCTIONS[function].parameters)}, not {parameters}"
            )
        return x

    @staticmethod
    def evaluate(x: Array, *, function: str, parameters: tuple[float, ...] | None) -> Array:
        from hbir.numerics.lut import FUNCTIONS

        return FUNCTIONS[function].evaluate(x, *(parameters or ()))


@irdl_op_definition
class ClipOp(HbOperation):
    """`min(max(x, min), max)`; relu is a clip with min 0 and no max."""

    name = "hbir.clip"

    input = operand_def(TensorType)
    min = opt_number()
    """Lower bound of the result; absent for none."""
    max = opt_number()
    """Upper bound of the result; absent for none."""
    output = result_def(TensorType)

    traits = traits_def(Pure())

    @staticmethod
    def infer(x: Tensor, *, min: float | None, max: float | None) -> Tensor:
        not_quantized(x)
        if min is not None and max is not None and not min <= max:
            raise VerifyException(f"clip bounds {min} and {max} are the wrong way round")
        return x

    @staticmethod
    def evaluate(x: Array, *, min: float | None, max: float | None) -> Array:
        return clamp(x, min, max)
