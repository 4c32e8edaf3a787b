"""Arm's TOSA conformance cases for the integer profile and its INT16 extension: generated offline with the shipped
generator and its fixed seed, read back as numpy arrays, and answered by the reference model. 1,820 positive cases for
the operations here."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt

from hbir.errors import SimulationError
from hbir.testing.oracles.packages import import_test_package

__all__ = ["OPERATIONS", "PROFILES", "Case", "Operand", "cases", "generate", "groups"]

PROFILES = frozenset({"tosa-pro-int", "tosa-ext-int16"})
"""The profile and the extension of TOSA whose cases are made."""
OPERATIONS = (
    "add",
    "argmax",
    "arithmetic_right_shift",
    "avg_pool2d",
    "clamp",
    "clz",
    "concat",
    "conv2d",
    "depthwise_conv2d",
    "matmul",
    "max_pool2d",
    "maximum",
    "minimum",
    "mul",
    "pad",
    "reduce_max",
    "reduce_min",
    "reduce_sum",
    "rescale",
    "reshape",
    "resize",
    "slice",
    "sub",
    "table",
    "transpose",
    "transpose_conv2d",
)
"""The TOSA operations that this project's operations are made of."""
SEED = "42"
VERSION = "1.0"
Array = npt.NDArray[Any]
TYPES: dict[str, npt.DTypeLike] = {
    "BOOL": np.bool_,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT48": np.int64,
}


@dataclass(frozen=True)
class Operand:
    """One operand: TOSA type name ("INT8" ... "INT48", "BOOL", "SHAPE") and value (INT48 and SHAPE as int64)."""

    type: str
    value: Array


@dataclass(frozen=True)
class Case:
    """One generated case: a single op with all operands in TOSA's order, constants included, and the reference
    model's result."""

    name: str
    op: str
    attributes: dict[str, Any]
    operands: tuple[Operand, ...]
    type: str
    expected: Array


def _site() -> Path:
    return Path(import_test_package("tosa_reference_model").__file__ or "").parent.parent


def _names(module: str, kind: str) -> dict[int, str]:
    enumeration: Any = getattr(import_test_package(module), kind)
    return {getattr(enumeration, name): name for name in dir(enumeration) if not name.startswith("_")}


def _configuration() -> Path:
    return _site() / "conformance" / "cts-config_v1.0.json"


def groups(operation: str) -> dict[str, frozenset[str]]:
    """The generator's groups of cases for an operation: name -> the profiles and extensions that the group needs."""
    generation = json.loads(_configuration().read_text())[operation]["generation"]
    return {
        name: frozenset(entry.get("supports_all", ())) | frozenset(entry.get("supports_any", ()))
        for name, entry in generation.items()
    }


def generate(folder: Path, operations: Sequence[str] = OPERATIONS) -> None:
    """Write the conformance cases of `operations` below `folder`: one folder a case, holding desc.json, test.tosa and
    input-*.npy.

    The generator's own choice of cases (its configuration, its seed), positive cases only. It runs in this process
    without its check of every descriptor against a JSON schema, which takes 95 % of its time and touches no data: 20
    s instead of 140 s for all.
    """
    main = import_test_package("generator.tosa_verif_build_tests").main
    validator = import_test_package("schemavalidation.schemavalidation").TestDescSchemaValidator
    configuration = _configuration()
    choices = json.loads(configuration.read_text())
    library = _site() / "tosa_reference_model" / "libtosa_reference_generate_lib.so"
    for operation in operations:
        for group, entry in choices[operation]["generation"].items():
            needed, any_of = set(entry.get("supports_all", ())), set(entry.get("supports_any", ()))
            if not needed <= PROFILES or (any_of and not any_of & PROFILES):
                continue
            for arguments in entry["generator_args"]:
                command = ["--generate-lib-path", str(library), "--filter", f"^{operation}$", "-o", str(folder / group)]
                command += [
                    "--seed",
                    SEED,
                    "--test-type",
                    "positive",
                    "--profile",
                    "tosa-pro-int",
                    "--extension",
                    "tosa-ext-int16",
                ]
                command += ["--tosa-version", VERSION, "--test-selection-config", str(configuration)]
                command += ["--test-selection-criteria", entry.get("selector", "default")]
                if "random_const_inputs" in choices[operation].get("support_for", ()):
                    command.append("--random-const-inputs")
                with mock.patch.object(validator, "validate_config"), contextlib.redirect_stdout(io.StringIO()):
                    status = main(command + arguments)
                if status:
                    raise SimulationError(93, f"the TOSA case generator failed for {operation}", why=f"status {status}")


def cases(folder: Path) -> Iterator[Case]:
    """The cases below `folder` in sorted order, each answered by the reference model.

    Raises `SimulationError` HB0793 for a case that the model itself does not answer."""
    for description in sorted(folder.rglob("desc.json")):
        yield _case(description.parent)


def _case(folder: Path) -> Case:
    description = json.loads((folder / "desc.json").read_text())
    buffer = (folder / description["tosa_file"]).read_bytes()
    fed = {
        name: np.load(folder / file)
        for name, file in zip(description["ifm_name"], description["ifm_file"], strict=True)
    }
    block: Any = import_test_package("tosa.TosaGraph").TosaGraph.GetRootAs(buffer, 0).Regions(0).Blocks(0)
    types, opcodes = _names("tosa.DType", "DType"), _names("tosa.Op", "Op")
    tensors = {tensor.Name().decode(): tensor for tensor in (block.Tensors(i) for i in range(block.TensorsLength()))}
    shapes = {shape.Name().decode(): shape for shape in (block.Shapes(i) for i in range(block.ShapesLength()))}
    operators = [block.Operators(i) for i in range(block.OperatorsLength())]
    (operator,) = [each for each in operators if opcodes[each.Op()] not in ("CONST", "CONST_SHAPE")]

    def operand(name: str) -> Operand:
        if name in shapes:
            data = shapes[name].DataAsNumpy().tobytes() if shapes[name].DataLength() else b""
            return Operand("SHAPE", np.frombuffer(data, np.int64, shapes[name].Rank()))
        kind = types[tensors[name].Type()]
        if name in fed:
            return Operand(kind, fed[name].astype(TYPES[kind]))
        return Operand(kind, _constant(tensors[name], kind))

    names = [operator.Inputs(i).decode() for i in range(operator.InputsLength())]
    operands = tuple(operand(name) for name in names)
    output = operator.Outputs(0).decode()
    kind = types[tensors[output].Type()]
    result = _answer(folder, buffer, description, list(fed.values()), kind, operands)
    result = result.reshape(_shape(tensors[output])).astype(TYPES[kind])
    return Case(folder.name, opcodes[operator.Op()], _attributes(operator), operands, kind, result)


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(int(tensor.Shape(i)) for i in range(tensor.ShapeLength()))


def _constant(tensor: Any, kind: str) -> Array:
    """A constant's bytes as numbers: little endian, INT48 in six bytes, padded at the end."""
    shape = _shape(tensor)
    count = int(np.prod(shape))
    data = tensor.DataAsNumpy().tobytes() if tensor.DataLength() else b""
    if kind == "INT48":
        low = np.frombuffer(data, np.uint8, 6 * count).reshape(count, 6).astype(np.int64)
        value = sum(low[:, i] << (8 * i) for i in range(6))
        return np.asarray(value - ((value >> 47) << 48)).reshape(shape)
    return np.frombuffer(data, TYPES[kind], count).reshape(shape)


def _attributes(operator: Any) -> dict[str, Any]:
    """The operator's attribute table in snake case: scalars as integers, vectors as lists."""
    names = _names("tosa.Attribute", "Attribute")
    name = names[operator.AttributeType()]
    if name == "NONE" or operator.Attribute() is None:
        return {}
    table: Any = getattr(import_test_package(f"tosa.{name}"), name)()
    table.Init(operator.Attribute().Bytes, operator.Attribute().Pos)
    found: dict[str, Any] = {}
    fields = [
        each
        for each in dir(table)
        if each[0].isupper()
        and not each.endswith(("AsNumpy", "Length", "IsNone", "HasIdentifier"))
        and not each.startswith(("GetRoot", "Init"))
    ]
    for each in fields:
        snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", each).lower()
        if hasattr(table, each + "Length"):
            found[snake] = [int(getattr(table, each)(i)) for i in range(getattr(table, each + "Length")())]
        else:
            found[snake] = getattr(table, each)()
    return found


def _answer(
    folder: Path, buffer: bytes, description: dict[str, Any], fed: list[Array], kind: str, operands: Sequence[Operand]
) -> Array:
    """The reference model's result: in process, or by its executable when INT48 crosses the border of the graph."""
    model: Any = import_test_package("tosa_reference_model")
    if kind != "INT48" and all(each.type != "INT48" for each in operands):
        (result,), status = model.run(buffer, fed)
        if status != model.GraphStatus.TOSA_VALID:
            raise SimulationError(93, f"the reference model reports {status}", where=folder.name)
        return np.asarray(result)
    target = folder / description["ofm_file"][0]
    if not target.exists():
        executable = _site() / "bin" / "tosa_reference_model"
        command = [str(executable), f"--test_desc={folder / 'desc.json'}"]
        # without a PATH the model finds no debugger to attach when it refuses a graph
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": ""})
        if done.returncode or not target.exists():
            raise SimulationError(93, "the reference model refused a case", where=folder.name, why=done.stderr[-500:])
    return np.load(target)
