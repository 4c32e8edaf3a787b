"""Every check of the verifier at its bound, which is legal, and one beyond it, which this check alone refuses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from backends.nash.isa import Event, Memories, Program, ProgramBuilder, View, assemble, queue_of, verify_program
from backends.nash.isa.opcodes import OPCODES
from backends.nash.isa.records import ABSENT, INSTRUCTION, MAX_PARAMS, VIEW
from backends.nash.isa.verify import check_records, check_views
from hbir.errors import FileFormatError, HbError, SimulationError
from tests.backends.nash.samples import POOL_TEXT

MEMORIES = Memories(ddr=1 << 16, l1m=1 << 12, l2m=1 << 10, cores=2, constants=64)
POOL = assemble(POOL_TEXT)


def refused(program: Program, code: str, *words: str, memories: Memories = MEMORIES, **views: list[View]) -> HbError:
    with pytest.raises(HbError) as caught:
        verify_program(program, memories, views.get("inputs", []), views.get("outputs", []))
    assert caught.value.code == code
    for word in words:
        assert word in str(caught.value)
    return caught.value


def legal(text: str, memories: Memories = MEMORIES, **views: list[View]) -> None:
    verify_program(assemble(text), memories, views.get("inputs", []), views.get("outputs", []))


def changed(field: str, at: int | tuple[int, int], value: object, program: Program = POOL) -> Program:
    instructions = program.instructions.copy()
    instructions[field][at] = value
    return Program(instructions, program.views, program.layers)


# Instructions.


@pytest.mark.parametrize(
    ("field", "at", "value", "words"),
    [
        ("opcode", 2, 3, "unknown opcode"),
        ("core", 0, 2, "names a core that the model, with 2, does not have"),
        ("wait_count", 2, 9, "more than 8 waits"),
        ("wait_queue", (2, 1), 1, "an unused wait is not zero"),
        ("wait_queue", (0, 0), 1, "an unused wait is not zero"),
        ("wait_value", (2, 7), 1, "an unused wait is not zero"),
        ("layer", 0, 1, "names a layer that does not exist"),
        ("operands", (0, 0), 4, "names a view that does not exist"),
        ("operands", (0, 2), 0, "LOAD: operand 2 does not belong to it"),
        ("operands", (1, 7), 0, "MAXPOOL: operand 7 does not belong to it"),
        ("operands", (0, 1), ABSENT, "LOAD: operand 'dst' is missing"),
        ("operands", (2, 0), ABSENT, "STORE: operand 'src' is missing"),
        ("params", (1, 0), 0, "MAXPOOL: kernel_h is not between 1 and 65536"),
        ("params", (1, 7), 65537, "MAXPOOL: pad_right is not between 0 and 65536"),
        ("params", (1, 8), 1, "MAXPOOL: parameter 8, which does not belong to it, is not between 0 and 0"),
        ("params", (1, 23), -1, "MAXPOOL: parameter 23, which does not belong to it, is not between 0 and 0"),
    ],
)
def test_fields_of_instructions(field: str, at: int | tuple[int, int], value: int, words: str) -> None:
    error = refused(changed(field, at, value), "HB0611", words)
    index = at if isinstance(at, int) else at[0]
    assert error.where == f"instruction {index}, layer 'pool'" if field != "layer" else f"instruction {index}"
    assert error.lever


def test_the_first_of_several_bad_instructions_is_named() -> None:
    program = changed("wait_count", 2, 9, changed("wait_count", 1, 9))
    assert refused(program, "HB0611").where == "instruction 1, layer 'pool'"


def test_one_of_many_instructions_of_an_opcode_is_found() -> None:
    program = assemble(FILL * 3)
    for at in range(3):
        bad = changed("params", (at, 1), 7, program)
        error = refused(bad, "HB0611", "FILL: parameter 1, which does not belong to it, is not between 0 and 0")
        assert error.where == f"instruction {at}"
        assert refused(changed("operands", (at, 0), ABSENT, program), "HB0611").where == f"instruction {at}"


def test_the_last_layer_and_the_last_view_exist() -> None:
    instructions = np.concatenate([POOL.instructions] * 2)
    instructions["layer"][-1] = 1
    check_records(Program(instructions, POOL.views, ("a", "b")), 1)
    # Without names, a layer is a number for others to know.
    check_records(Program(instructions, POOL.views), 1)
    assert POOL.instructions["operands"][2, 1] == len(POOL.views) - 1


@pytest.mark.parametrize("opcode", OPCODES, ids=lambda opcode: opcode.name)
def test_parameters_reach_from_their_minimum_to_their_maximum(opcode: Any) -> None:
    row = np.zeros(1, INSTRUCTION)
    row["opcode"] = opcode.number
    row["operands"] = ABSENT
    for at, operand in enumerate(opcode.operands):
        if not operand.optional:
            row["operands"][0, at] = 0
    views = np.array([View.dense("L1M", "i8", (1,), 0).pack()], VIEW)
    for values in ([p.minimum for p in opcode.params], [p.maximum for p in opcode.params]):
        row["params"][0, : len(values)] = values
        check_records(Program(row, views), 1)
    for at, param in enumerate(opcode.params):
        for value in (param.minimum - 1, param.maximum + 1):
            if not -(1 << 31) <= value < 1 << 31:
                continue  # no record holds it
            bad = row.copy()
            bad["params"][0, at] = value
            with pytest.raises(FileFormatError) as caught:
                check_records(Program(bad, views), 1)
            assert f"{opcode.name}: {param.name} is not between {param.minimum} and {param.maximum}" in str(
                caught.value
            )
    assert len(opcode.params) <= MAX_PARAMS


# Views.


def with_view(**fields: object) -> Program:
    """No instructions, a view without fault, and one with changed fields."""
    views = np.array([View.dense("L1M", "i8", (2, 3), 0).pack()] * 2, VIEW)
    for name, value in fields.items():
        views[name][1] = value
    return Program(np.zeros(0, INSTRUCTION), views)


CAP = 1 << 40
SIX = [1] * 6


@pytest.mark.parametrize(
    "fields",
    [
        {"space": 0},
        {"space": 1},
        {"core": 1},
        {"dtype": 9},
        {"rank": 6, "shape": SIX, "stride": SIX},
        {"rank": 0, "shape": [0] * 6, "stride": [0] * 6},
        {"address": CAP},
        {"shape": [1 << 20, 1, 0, 0, 0, 0], "stride": [1 << 20, 0, 0, 0, 0, 0]},
        {"shape": [1, 0xFFFFFFFF, 0, 0, 0, 0]},
    ],
)
def test_records_of_views_at_their_bounds(fields: Mapping[str, object]) -> None:
    check_records(with_view(**fields), 2)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"space": 3}, "memory that does not exist"),
        ({"dtype": 10}, "unknown element type"),
        ({"rank": 7}, "more than 6 axes"),
        ({"core": 2}, "an L1M that does not exist"),
        ({"space": 0, "core": 1}, "an L1M that does not exist"),
        ({"space": 1, "core": 1}, "an L1M that does not exist"),
        ({"pad": 1}, "padding that is not zero"),
        ({"shape": [2, 3, 1, 0, 0, 0]}, "padding that is not zero"),
        ({"stride": [3, 1, 0, 0, 0, 1]}, "padding that is not zero"),
        ({"shape": [0, 3, 0, 0, 0, 0]}, "an axis without extent"),
        ({"rank": 3, "stride": [3, 1, 1, 0, 0, 0]}, "an axis without extent"),
        ({"stride": [3, -1, 0, 0, 0, 0]}, "a negative stride"),
        ({"stride": [-3, 1, 0, 0, 0, 0]}, "a negative stride"),
        ({"address": CAP + 1}, "an extent beyond every memory"),
        (
            {"shape": [(1 << 20) + 1, 1, 0, 0, 0, 0], "stride": [1 << 20, 0, 0, 0, 0, 0]},
            "an extent beyond every memory",
        ),
    ],
)
def test_records_of_views_beyond_their_bounds(fields: Mapping[str, object], words: str) -> None:
    with pytest.raises(FileFormatError) as caught:
        check_records(with_view(**fields), 2)
    assert caught.value.code == "HB0612"
    assert f"view 1 has {words}" in str(caught.value)
    assert caught.value.lever


VIEWS_WITHIN = [
    View.dense("DDR", "i8", (1 << 16,), 0),
    View.dense("L2M", "i8", (1 << 10,), 0),
    View.dense("L1M", "i8", (1 << 12,), 0, core=1),
    View.dense("L1M", "i32", (1,), 4092),
    View("L1M", "i16", (1, 4), 2, (3, 2)),  # an axis of one element has a stride that nobody uses
    View("L1M", "i16", (3, 4), 0, (8, 2)),
    View("L1M", "i16", (4, 3), 0, (2, 8)),
    View("L1M", "i16", (2, 3, 2), 0, (2, 4, 12)),
    View("L1M", "i8", (2, 2), 0, (0, 1)),
    View("L1M", "i8", (1 << 16, 1 << 15), 0, (0, 0)),
    View("L1M", "i8", (), 4095, ()),
]
VIEWS_BEYOND = [
    (View.dense("DDR", "i8", (1 << 16,), 1), "ends at byte 65537 of a DDR of 65536"),
    (View.dense("L2M", "i8", (1 << 10,), 1), "ends at byte 1025 of a L2M of 1024"),
    (View.dense("L1M", "i8", (1 << 12,), 1, core=1), "ends at byte 4097 of a L1M of 4096"),
    (View.dense("L1M", "i32", (1,), 2), "is not aligned to its elements of 4 bytes"),
    (View("L1M", "i32", (2,), 0, (6,)), "is not aligned to its elements of 4 bytes"),
    (View("L1M", "i16", (4, 3), 0, (9, 2)), "is not aligned to its elements of 2 bytes"),
    (View("L1M", "i16", (3, 4), 0, (6, 2)), "has elements that overlap"),
    (View("L1M", "i16", (2, 3, 2), 0, (2, 4, 10)), "has elements that overlap"),
    (View("L1M", "i8", (2, 2), 0, (1, 1)), "has elements that overlap"),
    (View("L1M", "i8", (1 << 16, (1 << 15) + 1), 0, (0, 0)), "repeats its elements 2147549184 times"),
]


def only(view: View) -> Program:
    return Program(np.zeros(0, INSTRUCTION), np.array([view.pack()], VIEW))


@pytest.mark.parametrize("view", VIEWS_WITHIN, ids=str)
def test_views_that_their_memory_holds(view: View) -> None:
    check_views(only(view), MEMORIES)


@pytest.mark.parametrize(("view", "words"), VIEWS_BEYOND, ids=str)
def test_views_that_their_memory_does_not_hold(view: View, words: str) -> None:
    with pytest.raises(SimulationError) as caught:
        check_views(only(view), MEMORIES)
    assert caught.value.code == "HB0701"
    assert f"view 0 {words}" in str(caught.value)
    assert caught.value.where == ""


def test_a_bad_view_is_told_with_the_instruction_that_uses_it() -> None:
    text = "NOP.LOAD@0\nFILL@0 dst=L1M0[0x0] i8 4\nFILL@0 dst=L1M0[0xfff] i8 2\nFILL@0 dst=L1M0[0xfff] i8 2"
    assert refused(assemble(text), "HB0701", "view 1 ends at byte 4097").where == "instruction 2"


def test_pieces_of_a_view_are_bounded() -> None:
    large = Memories(ddr=1 << 22, l1m=0)
    check_views(only(View("DDR", "i8", (1 << 20,), 0, (2,))), large)
    with pytest.raises(SimulationError, match="view 0 lies in 1048577 pieces"):
        check_views(only(View("DDR", "i8", ((1 << 20) + 1,), 0, (2,))), large)


def test_pieces_of_a_program_are_bounded() -> None:
    # 2^22 for any program and 2^12 more for each instruction
    large = Memories(ddr=1 << 22, l1m=1 << 22)
    million = View("DDR", "i8", (1 << 20,), 0, (2,))
    few = View("DDR", "i8", (1,), 0, (1,))
    verify_program(assemble(""), large, [million] * 3, [million])
    refused(assemble(""), "HB0701", "inputs and outputs lie in too many pieces",
            memories=large, inputs=[million] * 3, outputs=[million, few])  # fmt: skip
    fill = "FILL@0 dst=L1M0[0x0] i8 4096 strides 2\n"
    legal(fill * 2, large, inputs=[million] * 4)
    error = refused(assemble(f"{fill * 2}NOP.LOAD@0\nFILL@0 dst=L1M0[0x0] i8 8193 strides 2"), "HB0701",
                    "operands up to here lie in too many pieces", memories=large, inputs=[million] * 4)  # fmt: skip
    assert error.where == "instruction 3"
    legal(f"{fill * 2}NOP.LOAD@0\nFILL@0 dst=L1M0[0x0] i8 8192 strides 2", large, inputs=[million] * 4)


# Inputs and outputs.


@pytest.mark.parametrize(
    ("memories", "words"),
    [
        (Memories(ddr=64, l1m=0, constants=65), "65 bytes of constants in a DDR of 64"),
        (Memories(ddr=64, l1m=0, constants=-1), "-1 bytes of constants"),
        (Memories(ddr=64, l1m=-1), "0 bytes of constants"),
        (Memories(ddr=64, l1m=0, l2m=-1), "0 bytes of constants"),
    ],
)
def test_impossible_memories(memories: Memories, words: str) -> None:
    refused(assemble(""), "HB0701", words, memories=memories)


def test_memories_may_be_empty() -> None:
    for memories in (Memories(ddr=0, l1m=0), Memories(ddr=64, l1m=0, constants=64)):
        verify_program(assemble(""), memories, [], [])


def ddr(extent: int, address: int) -> View:
    return View.dense("DDR", "i8", (extent,), address)


@pytest.mark.parametrize(
    ("view", "words"),
    [
        (ddr(4, 63), "lies in the constants"),
        (ddr(4, (1 << 16) - 3), "ends at byte 65537"),
        (View("DDR", "i8", (2, 4), 64, (0, 1)), "repeats elements"),
        (View.dense("L1M", "i8", (4,), 64), "is in L1M, not in DDR"),
        (View.dense("L2M", "i8", (4,), 64), "is in L2M, not in DDR"),
    ],
)
def test_inputs_and_outputs_that_lie_wrong(view: View, words: str) -> None:
    refused(assemble(""), "HB0701", f"input 1 {words}", inputs=[ddr(4, 64), view])
    refused(assemble(""), "HB0701", f"output 0 {words}", inputs=[ddr(4, 64)], outputs=[view])


def test_inputs_and_outputs_at_their_bounds() -> None:
    for view in (ddr(4, 64), ddr(4, (1 << 16) - 4), View("DDR", "i8", (1, 4), 64, (0, 1))):
        verify_program(assemble(""), MEMORIES, [view], [view])


# Operands.

FILL = "FILL@0 dst=L1M0[0x0] i8 4x8 ; value=1\n"
WAIT = " ; wait TRANS0>=1"
CLAMP = "CLAMP@0 x=L1M0[0x0] i8 4x8, out=L1M0[0x100] i8 4x8 ; low=-1 high=1"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("out=L1M0", "out=L1M1", "operand 'out' is in the L1M of core 1, the instruction runs on core 0"),
        ("x=L1M0[0x0]", "x=L2M[0x0]", "operand 'x' is in L2M, not in L1M"),
        ("i8 4x8, out=L1M0[0x100] i8 4x8", "u8 4x8, out=L1M0[0x100] u8 4x8", "operand 'x' holds u8, not i8 or i16"),
        ("out=L1M0[0x100] i8 4x8", "out=L1M0[0x100] i8 4x8 strides 16x2", "operand 'out' has gaps along its last axis"),
        ("i8 4x8, ", "i8 4x8 strides 8x0, ", "operand 'x' has gaps along its last axis"),
        ("out=L1M0[0x100] i8 4x8", "out=L1M0[0x100] i8 4x8 strides 0x1", "operand 'out' is written and repeats"),
        ("out=L1M0[0x100] i8 4x8", "out=L1M0[0x100] i8 4x2 strides 16x2", "operand 'out' has gaps along its last axis"),
        ("out=L1M0[0x100] i8 4x8", "out=L1M0[0x100] i8 2x8 strides 0x1", "operand 'out' is written and repeats"),
        ("out=L1M0[0x100] i8 4x8", "out=L1M0[0x100] i8 4x7", "'out' has shape (4, 7)"),
    ],
)
def test_operands_that_do_not_fit(old: str, new: str, words: str) -> None:
    assert old in CLAMP
    error = refused(assemble(FILL + CLAMP.replace(old, new, 1) + WAIT), "HB0702", f"CLAMP: {words}")
    assert error.where == "instruction 1"


@pytest.mark.parametrize(
    "text",
    [
        CLAMP,
        CLAMP.replace("i8 4x8", "i8 4x8x1").replace("i8 4x8x1, ", "i8 4x8x1 strides 8x1x5, "),
        CLAMP.replace("i8 4x8, ", "i8 4x8 strides 0x1, "),
        CLAMP.replace("i8 4x8", "i8 1x8").replace("0x100] i8 1x8", "0x100] i8 1x8 strides 0x1"),
        CLAMP.replace("i8 4x8", "i8 scalar"),
        CLAMP.replace("out=L1M0[0x100]", "out=L1M0[0x0]"),  # in place
        CLAMP.replace("out=L1M0[0x100]", "out=L1M0[0x20]"),
        "COPY@0 src=L1M0[0x0] i8 4x4 strides 8x2, dst=L1M0[0x100] i8 4x4 strides 16x3",
    ],
)
def test_operands_that_fit(text: str) -> None:
    legal(FILL + text + WAIT)


def test_an_error_that_comes_after_many_equal_instructions_is_found() -> None:
    text = FILL + f"{CLAMP}{WAIT}\n" * 3
    legal(text)
    for old, new, words in (
        ("high=1", "high=300", "CLAMP: clamp -1..300"),
        ("x=L1M0", "x=L1M1", "core 1"),
        ("i8 4x8", "i16 4x8", "gaps"),
    ):
        last = CLAMP.replace(old, new, 1).replace("i16 4x8, ", "i16 4x8 strides 32x4, ")
        assert refused(assemble(f"{text}{last}{WAIT}"), "HB0702", words).where == "instruction 4"
    refused(assemble(f"{text}{CLAMP.replace('@0', '@1')}{WAIT}"), "HB0702", "runs on core 1")


@pytest.mark.parametrize(
    ("text", "operand"),
    [
        (CLAMP.replace("out=L1M0[0x100]", "out=L1M0[0x1f]"), "x"),
        (CLAMP.replace("out=L1M0[0x100] i8 4x8", "out=L1M0[0x0] i8 4x8 strides 16x1"), "x"),
        ("REDUCE_MAX@0 x=L1M0[0x0] i8 1x8, out=L1M0[0x0] i8 1x8 ; axes=1", "x"),
        ("COPY@0 src=L1M0[0x0] i8 4x8, dst=L1M0[0x0] i8 4x8", "src"),
    ],
)
def test_results_over_operands(text: str, operand: str) -> None:
    error = refused(assemble(FILL + text + WAIT), "HB0702", f"its result overlaps operand '{operand}'")
    assert error.where == "instruction 1"


def test_the_same_addresses_of_other_memories_do_not_overlap() -> None:
    legal("LOAD@0 src=DDR[0x0] i8 64, dst=L1M0[0x0] i8 64")
    legal(
        "LOAD@0 src=DDR[0x0] i8 64, dst=L1M0[0x0] i8 64\nSTORE@0 src=L1M0[0x0] i8 64, dst=L2M[0x0] i8 64 ; wait LOAD0>=1"
    )


def host_call(inputs: int, *views: View, before: int = 0) -> Program:
    build = ProgramBuilder()
    for _ in range(before):
        build.append("NOP", unit="HOST")
    operands = {f"operand{i}": view for i, view in enumerate(views)}
    build.append("HOST_CALL", operands, {"function": 0, "inputs": inputs})
    return build.build()


def test_one_operand_may_be_read_twice_and_two_may_be_written() -> None:
    verify_program(host_call(2, ddr(8, 0), ddr(8, 4), ddr(4, 64), ddr(4, 68)), MEMORIES, [], [ddr(8, 64)])
    refused(host_call(1, ddr(8, 0), ddr(4, 60)), "HB0705", "over constants or inputs")
    for written in ((ddr(8, 100), ddr(8, 4)), (ddr(8, 4), ddr(8, 100))):
        refused(host_call(1, ddr(8, 0), *written), "HB0702", "its result overlaps operand 'operand0'")


# Waits.


def test_waits_point_at_queues_that_exist() -> None:
    text = "NOP.HOST@1\nNOP.LOAD@0 ; wait HOST1>=1"
    legal(text)
    error = refused(changed("wait_queue", (1, 0), queue_of(2, "LOAD"), assemble(text)), "HB0703", "does not exist")
    assert error.where == "instruction 1"
    one_core = Memories(ddr=64, l1m=0)
    legal("NOP.HOST@0\nNOP.LOAD@0 ; wait HOST0>=1", one_core)


@pytest.mark.parametrize(("value", "allowed"), [(0, False), (1, True), (2, True), (3, False)])
def test_waits_point_backwards(value: int, allowed: bool) -> None:
    program = changed(
        "wait_value", (2, 0), value, assemble("NOP.LOAD@0\nNOP.LOAD@0\nNOP.TAE@0 ; wait LOAD0>=1\nNOP.LOAD@0")
    )
    if allowed:
        verify_program(program, MEMORIES, [], [])
    else:
        error = refused(program, "HB0703", f"waits for {value} instructions of LOAD0", "2 stand before it")
        assert error.where == "instruction 2"


def test_nothing_waits_for_itself() -> None:
    build = ProgramBuilder()
    build.append("NOP", unit="LOAD")
    build.append("NOP", unit="LOAD", waits=[Event(queue_of(0, "LOAD"), 1)])
    verify_program(build.build(), MEMORIES, [], [])
    program = build.build()
    instructions = program.instructions.copy()
    instructions["wait_count"][1], instructions["wait_value"][1, 0] = 1, 2
    refused(Program(instructions, program.views), "HB0703", "waits for 2 instructions of LOAD0", "1 stand before it")


def test_the_last_of_eight_waits_is_checked() -> None:
    queues = [(core, unit) for core in (0, 1) for unit in ("LOAD", "STORE", "TAE", "VAE")]
    text = "".join(f"NOP.{unit}@{core}\n" for core, unit in queues)
    last = "NOP.SPU@0 ; wait " + " ".join(f"{unit}{core}>=1" for core, unit in queues)
    program = assemble(text + last)
    verify_program(program, MEMORIES, [], [])
    refused(changed("wait_value", (8, 7), 2, program), "HB0703", "waits for 2 instructions of VAE1")


# Bytes.


def test_what_is_read_was_written() -> None:
    store = "STORE@0 src=L1M0[0x0] i8 4x8, dst=DDR[0x40] i8 4x8" + WAIT
    legal(FILL + store)
    legal(FILL + store, outputs=[ddr(32, 64)])
    error = refused(assemble(FILL + store.replace("L1M0[0x0]", "L1M0[0x1]")), "HB0704", "STORE reads 'src'")
    assert error.where == "instruction 1"
    assert error.why == "L1M from byte 1 to 33"
    error = refused(assemble(FILL + store), "HB0706", "output 1 is not written completely",
                    outputs=[ddr(32, 64), ddr(33, 64)])  # fmt: skip
    assert error.why == "DDR from byte 64 to 97"


def test_a_copy_of_one_core_is_no_copy_of_another() -> None:
    fill = FILL.replace("@0", "@1").replace("L1M0", "L1M1")
    refused(assemble(f"{fill}{CLAMP} ; wait TRANS1>=1"), "HB0704", "CLAMP reads 'x'")


def test_constants_and_inputs_are_never_written() -> None:
    def store(address: int) -> Program:
        return assemble(f"{FILL}STORE@0 src=L1M0[0x0] i8 4x8, dst=DDR[{address:#x}] i8 4x8{WAIT}")

    verify_program(store(64), MEMORIES, [], [])
    assert refused(store(63), "HB0705", "STORE writes 'dst'").why == "DDR from byte 63 to 95"
    for address, allowed in ((96, True), (97, False), (128, False), (159, False), (160, True)):
        inputs = [ddr(8, 400), ddr(32, 128)]
        if allowed:
            verify_program(store(address), MEMORIES, inputs, [])
        else:
            refused(store(address), "HB0705", "over constants or inputs", inputs=inputs)


def test_constants_protect_ddr_only() -> None:
    legal("LOAD@0 src=DDR[0x0] i8 32, dst=L1M0[0x0] i8 32\n"
          "STORE@0 src=L1M0[0x0] i8 32, dst=L2M[0x0] i8 32 ; wait LOAD0>=1", inputs=[ddr(32, 64)])  # fmt: skip
    legal("LOAD@0 src=DDR[0x0] i8 32, dst=L1M0[0x40] i8 32\n"
          "STORE@0 src=L1M0[0x40] i8 32, dst=L2M[0x40] i8 32 ; wait LOAD0>=1", inputs=[ddr(32, 64)])  # fmt: skip


def test_a_hazard_names_both_instructions() -> None:
    text = '.layer 0 "a"\n.layer 1 "b"\n' + FILL + "LOAD@0 src=DDR[0x0] i8 4, dst=L1M0[0x1c] i8 4"
    error = refused(assemble(text), "HB0707", "nothing orders it after instruction 0")
    assert error.where.startswith("instruction 1")
    assert error.why.startswith("FILL (layer ")
    assert re.search(r"and LOAD \(layer '.*'\) meet at byte 28 of L1M0 on different queues", error.why)
    assert error.lever
