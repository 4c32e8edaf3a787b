"""Assembly text and programs are two forms of one thing."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from backends.nash.isa import DTYPES, OPCODES, UNITS, Program, ProgramBuilder, View, assemble, disassemble
from backends.nash.isa.records import ABSENT, INSTRUCTION, MAX_OPERANDS, MAX_PARAMS, MAX_WAITS, VIEW
from hbir.errors import FileFormatError
from tests.backends.nash.samples import POOL_TEXT

_dims = st.lists(st.integers(0, 2**32 - 1), max_size=6).map(tuple)


@st.composite
def views(draw: st.DrawFn) -> View:
    """Any view that a record can hold, sensible or not."""
    space = draw(st.sampled_from(["DDR", "L2M", "L1M"]))
    shape = draw(_dims)
    strides = tuple(draw(st.lists(st.integers(0, 2**31 - 1), min_size=len(shape), max_size=len(shape))))
    core = draw(st.integers(0, 255)) if space == "L1M" else 0
    return View(space, draw(st.sampled_from(list(DTYPES))), shape, draw(st.integers(0, 2**64 - 1)), strides, core)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Any program whose records are well formed; views may repeat, be unused or come in any order."""
    table = draw(st.lists(views(), min_size=1, max_size=6))
    rows: list[tuple[object, ...]] = []
    for _ in range(draw(st.integers(0, 6))):
        opcode = draw(st.sampled_from(OPCODES))
        operands = [ABSENT] * MAX_OPERANDS
        for at, operand in enumerate(opcode.operands):
            if not operand.optional or draw(st.booleans()):
                operands[at] = draw(st.integers(0, len(table) - 1))
        params = [draw(st.integers(p.minimum, p.maximum)) for p in opcode.params]
        params += [0] * (MAX_PARAMS - len(params))
        waits = draw(st.lists(st.tuples(st.integers(0, 251), st.integers(0, 2**32 - 1)), max_size=MAX_WAITS))
        fill = [0] * (MAX_WAITS - len(waits))
        queues, values = [w[0] for w in waits] + fill, [w[1] for w in waits] + fill
        rows.append(
            (
                opcode.number,
                draw(st.integers(0, 27)),
                len(waits),
                draw(st.integers(0, 9)),
                queues,
                values,
                operands,
                params,
            )
        )
    packed = np.array([view.pack() for view in table], VIEW)
    return Program(np.array(rows, INSTRUCTION), packed, tuple(draw(st.lists(st.text(max_size=8), max_size=3))))


@settings(max_examples=300, deadline=None)
@given(programs())
def test_assembling_the_disassembly_gives_the_same_bytes(program: Program) -> None:
    again = assemble(disassemble(program))
    assert again.instructions.tobytes() == program.instructions.tobytes()
    assert again.views.tobytes() == program.views.tobytes()
    assert again.layers == program.layers


def test_hand_written_text_and_builder_give_the_same_program() -> None:
    b = ProgramBuilder()
    layer = b.layer("pool")
    x, y = View.dense("L1M", "i8", (1, 8, 8, 16), 0), View.dense("L1M", "i8", (1, 4, 4, 16), 0x1000)
    loaded = b.append("LOAD", {"src": View.dense("DDR", "i8", (1, 8, 8, 16), 64), "dst": x}, layer=layer)
    window = {"kernel_h": 2, "kernel_w": 2, "stride_h": 2, "stride_w": 2}
    pooled = b.append("MAXPOOL", {"x": x, "out": y}, window, waits=[loaded], layer=layer)
    b.append("STORE", {"src": y, "dst": View.dense("DDR", "i8", (1, 4, 4, 16), 0x2000)}, waits=[pooled], layer=layer)
    assert assemble(POOL_TEXT) == b.build()


def test_defaults_strides_and_comments_read_naturally() -> None:
    text = disassemble(assemble(POOL_TEXT))
    assert "strides" not in text
    assert "pad_top" not in text
    gap = assemble("COPY@0 src=L1M0[0] i8 2x3 strides 16x1, dst=L1M0[64] i8 2x3   # a note\n")
    assert "src=L1M0[0x0] i8 2x3 strides 16x1, dst=L1M0[0x40] i8 2x3\n" in disassemble(gap)


def test_programs_whose_views_are_out_of_order_declare_them() -> None:
    program = assemble(".view 0 L1M0[0] i8 4\n.view 1 L1M0[64] i8 4\nCOPY@0 src=%1, dst=%0\n")
    assert program.instructions["operands"][0, :2].tolist() == [1, 0]
    assert ".view 1 L1M0[0x40] i8 4" in disassemble(program)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("WALK@0", "not an opcode"),
        ("LOAD src=DDR[0] i8 4", "not an opcode and a core"),
        ("COPY@0 src=L1M0[0] i8 4", "needs operand 'dst'"),
        ("COPY@0 source=L1M0[0] i8 4", "no operand 'source'"),
        ("FILL@0 dst=L1M0[0] i9 4", "element type 'i9'"),
        ("FILL@0 dst=L1M[0] i8 4", "not a view"),
        ("FILL@0 dst=L1M0[0] i8 4x4 strides 4", "each with a stride"),
        ("FILL@0 dst=L1M0[0] i8 99999999999", "L1M0"),
        ("FILL@0 dst=%0", "not declared"),
        ("FILL@0 dst=L1M0[0] i8 4 ; colour=3", "no parameter 'colour'"),
        ("FILL@0 dst=L1M0[0] i8 4 ; value=blue", "not an integer"),
        ("FILL@0 dst=L1M0[0] i8 4 ; value=99999999999", "fit"),
        ("FILL@0 dst=L1M0[0] i8 4 ; wait LOAD0", "not a wait"),
        ("FILL@0 dst=L1M0[0] i8 4 ; wait " + "LOAD0>=1 " * 9, "9 waits"),
        ("NOP@0", "NOP.TAE@0"),
        ("FILL.TAE@0 dst=L1M0[0] i8 4", "names its unit itself"),
        ('.layer 3 "x"', ".layer 0"),
        (".view 2 L1M0[0] i8 4", "numbered from 0"),
    ],
)
def test_errors_name_the_line(line: str, words: str) -> None:
    with pytest.raises(FileFormatError) as caught:
        assemble("# first\n" + line + "\n")
    assert caught.value.code == "HB0610"
    assert "line 2" in str(caught.value)
    assert words in str(caught.value)


def test_queue_names_cover_every_unit() -> None:
    text = "\n".join(f"NOP.{unit}@1" for unit in UNITS)
    assert [d.queue for d in assemble(text).decoded] == list(range(9, 18))
