"""Strategies for whole modules, valid by construction: one operation, or a graph of several."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from hbir.arguments import checked_kind, shown
from hbir.dialects.base import HbOperation
from hbir.dialects.hbir import ConstantOp
from hbir.ir.locations import layer_name
from hbir.module import Module
from hbir.testing.checked import checked_choices, checked_count, refusal
from hbir.testing.float_graphs import FLOAT_GENERATORS, QAT_GENERATORS
from hbir.testing.float_idioms import IDIOMS
from hbir.testing.graphs import Generator, Graph, Seeded, SeededGraph, TapeGraph
from hbir.testing.quantized_graphs import QUANTIZED_GENERATORS
from hbir.testing.quantized_idioms import QUANTIZED_IDIOMS

__all__ = ["GENERATORS", "Generated", "generate", "modules", "operations"]

_MORE = 17
"""One in so many more: how often a module ends before it has all the operations that it may have."""

_COMMON = 4
"""How many times as often as a single operation an idiom is drawn: faults of passes show in what passes look for."""

_SHOWN = 64
"""Elements of a constant that is small enough to be shown."""

GENERATORS: dict[type[HbOperation], Generator] = {**FLOAT_GENERATORS, **QAT_GENERATORS, **QUANTIZED_GENERATORS}
"""Operation class -> what adds one to a graph. A test fails when a class of a dialect is missing here."""

_DIALECTS: dict[str, Sequence[Generator]] = {
    "hbir": (*FLOAT_GENERATORS.values(), *_COMMON * IDIOMS),
    "qat": tuple(QAT_GENERATORS.values()),
    "quantized": (*QUANTIZED_GENERATORS.values(), *_COMMON * QUANTIZED_IDIOMS),
}


class Generated(Module):
    """A module that shows itself as text, with its small constants, where hypothesis prints the failing example."""

    def __repr__(self) -> str:
        lines = [str(self)]
        for op in (op for function in self for op in function.operations if isinstance(op, ConstantOp)):
            array = op.array(self.constants)
            if array.size <= _SHOWN:
                lines.append(f"// {layer_name(op)}: {array.dtype} {array.tolist()}")
        return "\n".join(lines)


def _generated(graph: Graph) -> Generated:
    module = graph.finish()
    return Generated(module.op, module.constants)


def operations(kind: type[HbOperation]) -> st.SearchStrategy[Module]:
    """Modules around one operation of a class, with whatever constants and inputs it takes::

        @given(operations(hbir.dialects.quantized.SoftmaxOp))
        def test_my_backend(module): ...

    Raises IrError HB0245 for what is not in `GENERATORS`.
    """
    refuse = refusal("kind", "give one of hbir.testing.GENERATORS, such as hbir.dialects.hbir.AddOp")
    if checked_kind(kind, type, refuse) not in GENERATORS:
        raise refuse(shown(kind), "there is no generator for it")
    return _operations(kind)


@st.composite
def _operations(draw: st.DrawFn, kind: type[HbOperation]) -> Module:
    graph = TapeGraph(draw)
    GENERATORS[kind](graph)
    return _generated(graph)


def modules(dialects: Sequence[str] = ("hbir",), max_ops: int = 6) -> st.SearchStrategy[Module]:
    """Modules of one function with up to `max_ops` generated operations (constants, and parts of idioms, not counted).

    `dialects`: any of `hbir` (a float network, with the idioms of exporters), `qat`, `quantized`. They verify, and run without
    an error on `example_feeds`. A failing one is printed as text, after it was cut down to few operations::

        @given(modules(("quantized",), max_ops=4))
        def test_my_pass(module):
            assert_same_semantics(module, Pipeline([MyPass()]).run(module))

    Raises IrError HB0245 for arguments that do not fit.
    """
    return _modules(*_checked(dialects, max_ops))


@st.composite
def _modules(draw: st.DrawFn, dialects: Sequence[str], max_ops: int) -> Module:
    return _generated(_filled(TapeGraph(draw), dialects, max_ops))


def generate(choices: Seeded, dialects: Sequence[str] = ("hbir",), max_ops: int = 6) -> Module:
    """One module of those that `modules` draws, decided by a seed: without shrinking, and many times faster.

    Raises IrError HB0245 for arguments that do not fit.
    """
    checked_kind(choices, Seeded, refusal("choices", "give a Seeded, such as Seeded(0)"))
    dialects, max_ops = _checked(dialects, max_ops)
    return _generated(_filled(SeededGraph(choices), dialects, max_ops))


def _checked(dialects: Sequence[str], max_ops: int) -> tuple[Sequence[str], int]:
    return checked_choices("dialects", dialects, tuple(_DIALECTS)), checked_count("max_ops", max_ops, 1)


def _filled(graph: Graph, dialects: Sequence[str], max_ops: int) -> Graph:
    generators = [generator for name in dialects for generator in _DIALECTS[name]]
    for _ in range(max_ops):
        graph.operation()
        graph.choose(generators)(graph)
        # Asked each time, rather than once for all: an operation in the middle can then be taken out while shrinking.
        if not graph.integer(0, _MORE):
            break
    if all(isinstance(op, ConstantOp) for op in graph.block.ops):
        generators[0](graph)  # of idioms every part may be absent
    return graph
