"""What differs between binaries: each planted change by its section, instruction, field, layer and constant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.nash.hbm import HostSegment, Model, read, write
from backends.nash.hbm.diff import diff_files, diff_models
from backends.nash.hbm.instruction_diff import InstructionChange, SameRun, diff_instructions
from backends.nash.isa import BY_NAME, Program, assemble, disassemble
from backends.nash.isa.program import queue_index
from hbir.errors import FileFormatError
from hbir.ir import Difference
from tests.backends.nash.samples import POOL_TEXT, ConvLayer, pool_model, tiled_conv_model
from tools.diff_text import weight_text


@pytest.fixture(name="model", scope="module")
def chain() -> Model:
    """Two convolutions in tiles of two rows."""
    rng = np.random.default_rng(0)
    return tiled_conv_model([ConvLayer.random(rng, 16, 3, 16) for _ in range(2)], 8, 8, 2)


def edited(program: Program, change: Callable[[list[str]], object]) -> Program:
    """The program whose text was changed line by line."""
    lines = disassemble(program).splitlines()
    change(lines)
    return assemble("\n".join(lines))


def one(before: Program, after: Program) -> InstructionChange:
    (change,) = diff_instructions(before, after).changes
    return change


def test_a_model_differs_from_itself_in_nothing(model: Model, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write([model], tmp_path / f"{name}.hbm")
    found = diff_files(tmp_path / "a.hbm", tmp_path / "b.hbm")
    assert not found and all(section.same for section in found.sections)
    (each,) = found.models
    assert (each.description, each.layers, each.weights, each.instructions.changes) == ((), (), (), ())
    assert each.instructions.same == len(model.program) and not each.host


def test_a_parameter_an_address_and_a_layer_are_told_by_name() -> None:
    before = assemble(POOL_TEXT)
    change = one(before, assemble(POOL_TEXT.replace("kernel_h=2", "kernel_h=3")))
    assert (change.kind, change.function, change.layer, change.before) == ("changed", "AAE0", "pool", "MAXPOOL")
    assert [(d.what, d.before, d.after) for d in change.differences] == [("kernel_h", "2", "3")]
    change = one(before, assemble(POOL_TEXT.replace("DDR[0x2000]", "DDR[0x2400]")))
    assert (change.function, [d.what for d in change.differences]) == ("STORE0", ["dst address"])
    assert (change.differences[0].before, change.differences[0].after) == ("0x2000", "0x2400")
    found = diff_instructions(before, assemble(POOL_TEXT.replace('"pool"', '"other"'))).changes
    assert {(c.layer, d.what, d.before, d.after) for c in found for d in c.differences} == {
        ("other", "layer", "pool", "other")
    }


def test_shape_type_and_a_missing_operand_are_told() -> None:
    wide = POOL_TEXT.replace("1x4x4x16, dst=DDR[0x2000] i8 1x4x4x16", "16x16, dst=DDR[0x2000] i8 16x16")
    change = one(assemble(POOL_TEXT), assemble(wide))
    assert [(d.what, d.before, d.after) for d in change.differences] == [
        ("src shape", "1x4x4x16", "16x16"), ("dst shape", "1x4x4x16", "16x16"),
    ]  # fmt: skip
    rescale = "RESCALE@0 x=L1M0[0x0] i8 16, {}out=L1M0[0x40] i8 16 ; high=127"
    per_channel = rescale.format("multiplier=L1M0[0x80] i32 16, shift=L1M0[0x100] i8 16, ")
    change = one(assemble(rescale.format("")), assemble(per_channel))
    assert {d.what: d.before for d in change.differences} == {"operand multiplier": "none", "operand shift": "none"}


def test_waits_are_the_same_when_they_wait_for_partners(model: Model) -> None:
    """A new instruction at the head of a queue moves every count that others wait for."""
    nop = "NOP.LOAD@0"
    shifted: list[str] = []
    for line in disassemble(model.program).splitlines():
        parts = line.split("LOAD0>=")
        shifted.append(parts[0] + "".join(_more(part) for part in parts[1:]))
    first = next(at for at, line in enumerate(shifted) if not line.startswith("."))
    after = assemble("\n".join([*shifted[:first], nop, *shifted[first:]]))
    change = one(model.program, after)
    assert (change.kind, change.after, change.after_index, change.before_index) == ("added", "NOP", 0, None)
    unwaited = assemble(POOL_TEXT.replace(" ; wait AAE0>=1", ""))
    (difference,) = one(assemble(POOL_TEXT), unwaited).differences
    assert (difference.what, difference.before, difference.after) == ("waits", "AAE0>=1", "none")


def _more(text: str) -> str:
    number = text.split(" ")[0]
    return f"LOAD0>={int(number) + 1}{text[len(number) :]}"


@given(st.data())
def test_what_was_taken_out_of_queues_is_found_and_nothing_else(model: Model, data: st.DataObject) -> None:
    before = replace(model.program, instructions=_without_waits(model.program))
    gone = data.draw(st.sets(st.integers(0, len(before) - 1), max_size=6))
    kept = np.array([at for at in range(len(before)) if at not in gone], np.int64)
    after = replace(before, instructions=before.instructions[kept])
    found = diff_instructions(before, after)
    assert {change.kind for change in found.changes} <= {"removed"} and len(found.changes) == len(gone)
    assert found.same == len(kept)
    # Of equal neighbours it cannot be told which one is gone.
    queues = queue_index(before.instructions)
    taken = [change.before_index for change in found.changes]
    assert sorted(queues[sorted(gone)].tolist()) == sorted(queues[[at for at in taken if at is not None]].tolist())


def _without_waits(program: Program) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    instructions = program.instructions.copy()
    for field in ("wait_count", "wait_queue", "wait_value"):
        instructions[field] = 0
    return instructions


def test_names_that_were_left_out_are_no_difference(model: Model) -> None:
    found = diff_instructions(model.program, replace(model.program, layers=()))
    assert not found.changes and found.same == len(model.program)


def test_runs_tell_how_long_they_are_and_where(model: Model) -> None:
    rows = diff_instructions(model.program, model.program).rows
    assert all(isinstance(row, SameRun) for row in rows)
    assert {row.queue: row.layers for row in rows if isinstance(row, SameRun)}["TAE0"] == ("conv0", "conv1")


def test_twenty_thousand_instructions_of_which_many_differ(model: Model) -> None:
    """Quadratic alignment would take minutes."""
    instructions = np.tile(_without_waits(model.program), 20_000 // len(model.program))
    layers = len(model.program.layers)
    instructions["layer"] += (np.arange(len(instructions)) // len(model.program) * layers).astype(np.uint32)
    names = tuple(
        f"{name}.{copy}" for copy in range(len(instructions) // len(model.program)) for name in model.program.layers
    )
    before = Program(instructions, model.program.views, names)
    other = np.delete(instructions, np.arange(5, len(instructions), 97))
    convolutions = np.flatnonzero(other["opcode"] == BY_NAME["CONV"].number)[::10]
    other["params"][convolutions, 4] += 1
    found = diff_instructions(before, Program(other, before.views, names))
    kinds = [change.kind for change in found.changes]
    assert kinds.count("removed") - kinds.count("added") == len(instructions) - len(other)
    assert kinds.count("changed") >= 0.9 * len(convolutions)
    assert {each.what for change in found.changes for each in change.differences} == {"pad_top"}


def with_constant(model: Model, at: int, value: int) -> Model:
    data = bytearray(model.constants)
    data[at] = value
    return replace(model, constants=memoryview(bytes(data)))


def test_a_changed_weight_is_told_with_its_layer_and_its_largest_difference(model: Model) -> None:
    weights = next(
        d for d in model.program.decoded if d.opcode.name == "LOAD" and model.program.layer_name(d.index) == "conv1"
    )
    at = weights.operands["src"].address
    old = int(np.frombuffer(model.constants, np.int8)[at])
    (change,) = diff_models(model, with_constant(model, at, (old + 3) & 0xFF)).weights
    assert (change.layer, change.operand, change.differing, change.largest) == ("conv1", "weight", 1, 3.0)
    assert change.before_bytes == change.after_bytes == change.numbers == 16 * 3 * 3 * 16
    new = int(np.int64(old + 3).astype(np.int8))
    assert (change.dtype, change.first, change.before, change.after) == ("i8", 0, str(old), str(new))


def test_a_bias_is_compared_as_the_numbers_it_holds(model: Model) -> None:
    bias = next(d.operands["bias"] for d in model.program.decoded if d.opcode.name == "CONV")
    load = next(
        d for d in model.program.decoded if d.opcode.name == "LOAD" and d.operands["dst"].address == bias.address
    )
    at = load.operands["src"].address + 1  # the second byte of the first int32
    (change,) = diff_models(model, with_constant(model, at, model.constants[at] ^ 1)).weights
    assert (change.layer, change.operand, change.differing, change.largest) == ("conv0", "bias", 1, 256.0)
    assert (change.numbers, change.dtype, change.first) == (16, "i32", 0)
    assert abs(int(change.before) - int(change.after)) == 256


def test_numbers_are_counted_and_not_their_bytes(model: Model) -> None:
    """Three bytes of one int32 differ: one of sixteen numbers."""
    bias = next(d.operands["bias"] for d in model.program.decoded if d.opcode.name == "CONV")
    loads = [d.operands for d in model.program.decoded if d.opcode.name == "LOAD"]
    at = next(each["src"].address for each in loads if each["dst"].address == bias.address) + 4 * 5
    other = model
    for byte in range(3):
        other = with_constant(other, at + byte, model.constants[at + byte] ^ 1)
    (change,) = diff_models(model, other).weights
    assert (change.differing, change.numbers, change.first, change.before_bytes) == (1, 16, 5, 64)
    distance = abs(int(change.before) - int(change.after))
    text = f"1 of 16 i32 numbers differ, by {distance} at most; first at 5: {change.before} -> {change.after}"
    assert distance == change.largest and weight_text(change) == text


def test_constants_that_nobody_reads_are_told_as_such() -> None:
    (change,) = diff_models(pool_model(), with_constant(pool_model(), 7, 99)).weights
    assert (change.layer, change.operand, change.differing, change.largest) == (
        "", "bytes that no instruction reads", 1, 92.0,
    )  # fmt: skip


def test_the_interface_and_the_placement_are_compared_by_name() -> None:
    model = pool_model()
    other = replace(
        model,
        options={"opt": 0},
        inputs=(replace(model.inputs[0], description="a picture"),),
        outputs=(replace(model.outputs[0], name="z"),),
        placements=({"layer": "pool", "unit": "HOST"}, {"layer": "new", "unit": "AAE"}),
    )
    found = diff_models(model, other)
    told = {each.what: (each.before, each.after) for each in found.description}
    assert told["options opt"] == ("2", "0")
    assert told["inputs 'x' description"] == ("an image", "a picture")
    assert told["outputs 'y' name"] == ("y", "none") and told["outputs 'z' name"] == ("none", "z")
    assert not any(what.startswith("march") for what in told)
    assert [(change.kind, change.layer) for change in found.layers] == [("changed", "pool"), ("added", "new")]
    assert found.layers[0].differences[0].after == "HOST"


HOST = """"builtin.module"() ({
  "func.func"() <{function_type = (tensor<2xf32>) -> tensor<2xf32>, sym_name = "host_0"}> ({
  ^bb0(%x: tensor<2xf32>):
    %0 = "hbir.clip"(%x) <{min = MIN : f64}> : (tensor<2xf32>) -> tensor<2xf32> loc("relu")
    "func.return"(%0) : (tensor<2xf32>) -> ()
  }) : () -> ()
}) : () -> ()
"""


def test_what_the_host_runs_is_compared_as_modules() -> None:
    one_side, other = (replace(pool_model(), host=HostSegment(HOST.replace("MIN", low), {})) for low in ("0.0", "1.0"))
    (change,) = diff_models(one_side, other).host.changes
    assert (change.layer, change.differences[0].what) == ("relu", "attribute 'min'")
    assert [change.kind for change in diff_models(pool_model(), other).host.changes] == ["added"]
    lying = replace(pool_model(), host=HostSegment(HOST.replace("MIN", "0.0"), {"00" * 32: memoryview(b"x")}))
    with pytest.raises(FileFormatError) as caught:
        diff_models(one_side, lying)
    assert caught.value.code == "HB0629"


def test_files_are_compared_by_section_and_models_by_name(tmp_path: Path) -> None:
    a, b = tmp_path / "a.hbm", tmp_path / "b.hbm"
    first, second = replace(pool_model(), name="first"), replace(pool_model(), name="second")
    write([first, second], a)
    write([with_constant(second, 7, 99), replace(first, name="third")], b)
    found = diff_files(a, b)
    assert bool(found)
    assert ([model.name for model in found.models], found.removed, found.added) == (["second"], ("first",), ("third",))
    assert {section.name for section in found.sections if not section.same} == {"0/constants", "0/graph", "1/graph"}
    write([first], a)
    write([second], b)
    (model,) = diff_files(a, b).models
    assert [(each.what, each.before, each.after) for each in model.description] == [("name", "first", "second")]


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    write([pool_model()], tmp_path / "a.hbm")
    (tmp_path / "b.hbm").write_bytes((tmp_path / "a.hbm").read_bytes()[:-1])
    for other, code in (("b.hbm", "HB0621"), ("none.hbm", "HB0628")):
        with pytest.raises(FileFormatError) as caught:
            diff_files(tmp_path / "a.hbm", tmp_path / other)
        assert caught.value.code == code
    assert read(tmp_path / "a.hbm")


def renamed(model: Model, old: str, new: str) -> Model:
    layers = tuple(new if name == old else name for name in model.program.layers)
    rows = tuple({**row, "layer": new} if row.get("layer") == old else row for row in model.placements)
    return replace(model, program=replace(model.program, layers=layers), placements=rows)


def test_a_renamed_layer_is_told_once(model: Model) -> None:
    placed = replace(model, placements=({"layer": "conv0", "op": "conv2d"}, {"layer": "conv1", "op": "conv2d"}))
    for before, kind in ((model, "layer"), (placed, "conv2d")):
        found = diff_models(before, renamed(before, "conv1", "features.3"))
        assert (found.weights, found.instructions.changes, found.description) == ((), (), ())
        (change,) = found.layers
        assert (change.kind, change.layer, change.before) == ("changed", "features.3", kind)
        assert change.differences == (Difference("layer", "conv1", "features.3"),)


def test_a_changed_weight_of_a_renamed_layer_is_told_under_its_new_name(model: Model) -> None:
    loads = [d for d in model.program.decoded if d.opcode.name == "LOAD"]
    at = next(d for d in loads if model.program.layer_name(d.index) == "conv1").operands["src"].address
    found = diff_models(model, renamed(with_constant(model, at, model.constants[at] ^ 1), "conv1", "features.3"))
    assert [(change.layer, change.operand, change.differing) for change in found.weights] == [
        ("features.3", "weight", 1)
    ]


def test_two_layers_that_change_names_are_no_rename(model: Model) -> None:
    """Both programs name both: which instructions moved from one to the other is told for each."""
    layers = tuple({"conv0": "conv1", "conv1": "conv0"}[name] for name in model.program.layers)
    found = diff_models(model, replace(model, program=replace(model.program, layers=layers)))
    assert found.instructions.changes and not found.layers


def test_all_layers_may_have_other_names(model: Model) -> None:
    other = renamed(renamed(model, "conv0", "a"), "conv1", "b")
    found = diff_models(model, other)
    assert not found.weights and not found.instructions.changes
    told = [(change.layer, each.before, each.after) for change in found.layers for each in change.differences]
    assert told == [("a", "conv0", "a"), ("b", "conv1", "b")]


def test_long_lists_of_numbers_in_a_description_are_told_by_their_first_difference() -> None:
    one, other = (replace(pool_model(), options={"scales": [*range(300), last]}) for last in (1, 8))
    (difference,) = diff_models(one, other).description
    assert difference.before.count(",") == 300
    assert difference.note == "1 of 301 numbers differ, by 7 at most; first at 300: 1 -> 8"
    assert [text[-3:] for text in difference.shown] == [" 1]", " 8]"]
