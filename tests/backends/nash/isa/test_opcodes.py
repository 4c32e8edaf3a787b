"""The table of opcodes agrees with everything that is derived from it or stands beside it."""

from __future__ import annotations

import numpy as np

from backends.nash.isa import OPCODES, UNITS, reference_page
from backends.nash.isa.cycles import CYCLES
from backends.nash.isa.records import DTYPES, INSTRUCTION, MAX_OPERANDS, MAX_PARAMS, SPACES, VIEW
from backends.nash.simulator.kernels import BINDERS


def test_records_have_their_documented_sizes() -> None:
    assert (INSTRUCTION.itemsize, VIEW.itemsize) == (176, 64)
    assert INSTRUCTION.newbyteorder("<") == INSTRUCTION


def test_numbers_and_names_are_unique_and_fit_the_record() -> None:
    assert len({o.number for o in OPCODES}) == len({o.name for o in OPCODES}) == len(OPCODES)
    for opcode in OPCODES:
        assert opcode.unit in (*UNITS, "")
        assert len(opcode.operands) <= MAX_OPERANDS
        assert len(opcode.params) <= MAX_PARAMS
        for operand in opcode.operands:
            assert operand.access in "rw"
            assert set(operand.dtypes) <= set(DTYPES)
            assert set(operand.spaces) <= set(SPACES)
        for param in opcode.params:
            assert param.minimum <= param.default <= param.maximum or param.name == "axes"
            assert np.iinfo(np.int32).min <= param.minimum <= param.maximum <= np.iinfo(np.int32).max


def test_every_opcode_has_a_meaning_a_cost_and_a_place_in_the_reference() -> None:
    names = {opcode.name for opcode in OPCODES}
    assert set(CYCLES) == names
    assert set(BINDERS) == names - {"NOP", "HOST_CALL"}
    page = reference_page()
    for opcode in OPCODES:
        assert f"### {opcode.number} {opcode.name} " in page
        assert opcode.doc in page
        assert all(f"| {param.name} |" in page for param in opcode.params)
