"""Every planted error is caught, with its code, the instruction and the layer's name; correct programs pass."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from backends.nash.hbm import verify_model
from backends.nash.isa import Program, View, assemble
from backends.nash.isa.rules import RuleError, pool
from hbir.errors import FileFormatError, HbError, SimulationError
from tests.backends.nash.samples import POOL_TEXT, ConvLayer, pool_model, tiled_conv_model

LOAD = "LOAD@0 src=DDR[0x40] i8 1x8x8x16, dst=L1M0[0x0] i8 1x8x8x16"


def refused(text: str, code: str, *words: str) -> None:
    with pytest.raises(HbError) as caught:
        verify_model(pool_model(text))
    assert caught.value.code == code
    for word in words:
        assert word in str(caught.value)


def test_correct_programs_pass() -> None:
    verify_model(pool_model())
    rng = np.random.default_rng(0)
    verify_model(tiled_conv_model([ConvLayer.random(rng, 8, 3, 8), ConvLayer.random(rng, 4, 1, 8)], 12, 10, 4))


@pytest.mark.parametrize(
    ("old", "new", "code", "words"),
    [
        ("dst=DDR[0x2000]", "dst=DDR[0x2ff0]", "HB0701", ["instruction 2", "layer 'pool'", "ends at byte 12528"]),
        ("L1M0[0x1000] i8 1x4x4x16", "L1M0[0x1ff0] i8 1x4x4x16", "HB0701", ["ends at byte 8432 of a L1M of 8192"]),
        ("L1M0[0x0] i8 1x8x8x16", "L1M0[0x1] i16 1x8x8x8", "HB0701", ["not aligned"]),
        ("dst=DDR[0x2000] i8 1x4x4x16", "dst=DDR[0x2000] i8 1x4x4x16 strides 256x64x8x1", "HB0701", ["overlap"]),
        ("i8 1x4x4x16, dst=DDR[0x2000] i8 1x4x4x16", "i8 1x4x4x8, dst=DDR[0x2000] i8 1x4x4x16", "HB0702", ["shape"]),
        ("dst=DDR[0x2000] i8 1x4x4x16", "dst=DDR[0x2000] u8 1x4x4x16", "HB0702", ["holds u8"]),
        ("dst=DDR[0x2000]", "dst=L1M0[0x1800]", "HB0702", ["is in L1M, not in DDR or L2M"]),
        ("dst=DDR[0x2000] i8 1x4x4x16", "dst=DDR[0x2000] i8 1x4x4x16 strides 256x64x0x1", "HB0702", ["repeats"]),
        ("kernel_w=2", "kernel_w=3", "HB0702", ["MAXPOOL", "the window gives"]),
        ("x=L1M0[0x0] i8 1x8x8x16", "x=L1M0[0x0] i8 1x8x8x16 strides 1024x128x1x8", "HB0702", ["gaps"]),
        ("kernel_h=2 ", "kernel_h=2 pad_top=2 pad_bottom=2 ", "HB0702", ["the window gives"]),
        ("out=L1M0[0x1000]", "out=L1M0[0x300]", "HB0702", ["overlaps operand 'x'"]),
        ("wait LOAD0>=1", "wait LOAD0>=2", "HB0703", ["instruction 1", "waits for 2 instructions of LOAD0"]),
        ("wait LOAD0>=1", "wait STORE0>=1", "HB0703", ["may never start"]),
        ("wait LOAD0>=1", "wait LOAD1>=1", "HB0703", ["queue that does not exist"]),
        ("src=DDR[0x40]", "src=DDR[0x50]", "HB0704", ["instruction 0", "nothing has written"]),
        ("x=L1M0[0x0]", "x=L1M0[0x400]", "HB0704", ["instruction 1", "layer 'pool'"]),
        ("dst=DDR[0x2000]", "dst=DDR[0x20]", "HB0705", ["instruction 2", "over constants or inputs"]),
        ("dst=DDR[0x2000]", "dst=DDR[0x140]", "HB0705", ["over constants or inputs"]),
        ("dst=DDR[0x2000]", "dst=DDR[0x1ff0]", "HB0706", ["output 0"]),
        (
            " ; wait AAE0>=1",
            "",
            "HB0707",
            ["instruction 2", "after instruction 1", "byte 4096 of L1M0", "layer 'pool'"],
        ),
        (" ; wait LOAD0>=1", "", "HB0707", ["LOAD", "MAXPOOL"]),
    ],
)
def test_planted_errors_are_caught(old: str, new: str, code: str, words: list[str]) -> None:
    assert old in POOL_TEXT
    refused(POOL_TEXT.replace(old, new), code, *words)


def test_a_byte_written_between_two_reads_of_a_strided_view_is_seen() -> None:
    # Even columns are loaded twice, odd columns never: bounding intervals alone would let this pass.
    half = "1x8x4x16 strides 1024x128x32x1"
    load = f"LOAD@0 src=DDR[0x40] i8 {half}, dst=L1M0[0x0] i8 {half}"
    refused(POOL_TEXT.replace(LOAD, load), "HB0704", "MAXPOOL")
    odd = f"LOAD@0 src=DDR[0x50] i8 {half}, dst=L1M0[0x10] i8 {half}"
    both = POOL_TEXT.replace(LOAD, load + "\n" + odd)
    refused(both, "HB0707", "after instruction 1")
    verify_model(pool_model(both.replace("LOAD0>=1", "LOAD0>=2")))


def test_interleaved_writers_on_two_queues_are_no_hazard() -> None:
    fill = "FILL@0 dst=L1M0[0x10] i8 1x8x4x16 strides 1024x128x32x1 ; value=3"
    load = LOAD.replace("1x8x8x16", "1x8x4x16 strides 1024x128x32x1")
    text = POOL_TEXT.replace(LOAD, f"{load}\n{fill}").replace("wait LOAD0>=1", "wait LOAD0>=1 TRANS0>=1")
    verify_model(pool_model(text))
    wider = text.replace("L1M0[0x10] i8 1x8x4x16", "L1M0[0x0f] i8 1x8x4x17")
    refused(wider, "HB0707", "byte 15 of L1M0")


def test_windows_without_input_are_refused() -> None:
    views = {"x": View.dense("L1M", "i8", (1, 4, 4, 8), 0), "out": View.dense("L1M", "i8", (1, 4, 2, 8), 0)}
    params = dict.fromkeys(("kernel_h", "kernel_w", "stride_h", "stride_w", "pad_top", "pad_bottom"), 2)
    with pytest.raises(RuleError, match="windows without input"):
        pool(views, params | {"pad_left": 0, "pad_right": 0})


def test_repeated_reads_are_legal() -> None:
    text = POOL_TEXT.replace("src=DDR[0x40] i8 1x8x8x16", "src=DDR[0x40] i8 1x8x8x16 strides 0x0x16x1")
    verify_model(pool_model(text))


def test_a_convolution_owes_its_operands_their_shapes() -> None:
    rng = np.random.default_rng(0)
    model = tiled_conv_model([ConvLayer.random(rng, 8, 3, 8)], 8, 8, 8)
    weight = model.program.views[1]
    for field, value, words in [
        ("shape", 640, "packed layout takes 1152"),
        ("dtype", 1, "weight_bits"),
    ]:
        views = model.program.views.copy()
        changed = [i for i, v in enumerate(views) if v["shape"][0] == weight["shape"][0] and v["rank"] == 1]
        for i in changed:
            views[field][i] = (value, 0, 0, 0, 0, 0) if field == "shape" else value
            if field == "dtype":
                views["stride"][i] = (2, 0, 0, 0, 0, 0)
        memories = replace(model.memories, l1m=1 << 16)
        with pytest.raises(SimulationError) as caught:
            verify_model(replace(model, program=Program(model.program.instructions, views), memories=memories))
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("field", "index", "value", "words"),
    [
        ("opcode", 1, 999, "unknown opcode"),
        ("core", 1, 1, "core"),
        ("wait_count", 1, 9, "more than 8 waits"),
        ("layer", 2, 1, "layer that does not exist"),
    ],
)
def test_records_with_impossible_fields_are_refused(field: str, index: int, value: int, words: str) -> None:
    model = pool_model()
    instructions = model.program.instructions.copy()
    instructions[field][index] = value
    with pytest.raises(FileFormatError) as caught:
        verify_model(replace(model, program=Program(instructions, model.program.views, model.program.layers)))
    assert caught.value.code == "HB0611"
    assert f"instruction {index}" in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("field", "slot", "value", "words"),
    [
        ("wait_value", 5, 1, "unused wait"),
        ("operands", 0, 77, "view that does not exist"),
        ("operands", 5, 0, "does not belong"),
        ("operands", 0, 0xFFFFFFFF, "operand 'x' is missing"),
        ("params", 0, 0, "kernel_h is not between 1"),
        ("params", 20, 1, "parameter 20"),
    ],
)
def test_records_with_impossible_slots_are_refused(field: str, slot: int, value: int, words: str) -> None:
    model = pool_model()
    instructions = model.program.instructions.copy()
    instructions[field][1, slot] = value
    with pytest.raises(FileFormatError) as caught:
        verify_model(replace(model, program=Program(instructions, model.program.views, model.program.layers)))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("space", 3, "memory that does not exist"),
        ("dtype", 99, "element type"),
        ("rank", 7, "axes"),
        ("core", 1, "L1M that does not exist"),
        ("pad", 1, "padding"),
        ("shape", (1, 0, 8, 16, 0, 0), "without extent"),
        ("shape", (1, 8, 8, 16, 2, 0), "padding"),
        ("stride", (1, -128, 16, 1, 0, 0), "negative"),
        ("shape", (0xFFFFFFFF, 8, 8, 16, 0, 0), "beyond every memory"),
        ("address", 0xFFFFFFFFFFFFFFFF, "beyond every memory"),
    ],
)
def test_views_with_impossible_fields_are_refused(field: str, value: object, words: str) -> None:
    model = pool_model()
    views = model.program.views.copy()
    views[field][1] = value
    with pytest.raises(FileFormatError) as caught:
        verify_model(replace(model, program=Program(model.program.instructions, views, model.program.layers)))
    assert caught.value.code == "HB0612"
    assert words in str(caught.value)


def test_outputs_and_inputs_lie_behind_the_constants() -> None:
    model = pool_model()
    wrong = replace(model.inputs[0], view=View.dense("DDR", "i8", (1, 8, 8, 16), 32))
    with pytest.raises(SimulationError, match="input 0 lies in the constants"):
        verify_model(replace(model, inputs=(wrong,)))


def test_an_empty_program_without_outputs_is_legal() -> None:
    model = replace(pool_model(), program=assemble(""), outputs=())
    verify_model(model)


def test_thousands_of_instructions_are_verified_in_well_under_a_second() -> None:
    rng = np.random.default_rng(0)
    model = tiled_conv_model([ConvLayer.random(rng, 64, 3, 64) for _ in range(40)], 64, 64, 4)
    model = replace(model, memories=replace(model.memories, l1m=1 << 23))
    assert len(model.program) > 1900
    begin = time.process_time()
    verify_model(model)
    assert time.process_time() - begin < 1.0
