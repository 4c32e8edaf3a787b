"""Whatever tiles, order and addresses are drawn, the model computes the same; and the product draws nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.nash import variation
from backends.nash.compiler import CompileOptions, Stages, compile_model
from backends.nash.hbm import Model
from backends.nash.lower import lower
from backends.nash.schedule import Schedule, schedule
from backends.nash.simulator.functional import bind
from backends.nash.tile import tile
from backends.nash.variation import varied
from hbir import Module
from hbir.errors import HbError
from hbir.march import March, load_march
from hbir.testing import example_feeds, modules
from tests.backends.nash.small_networks import small_network

NAMES = ("residual", "stride", "depthwise", "squeeze_excite", "concat")
MARCH = load_march("nash-e")
SMALL = replace(MARCH, l1m_bytes=12 << 10)


def _built(module: Module, stages: Stages, march: March = MARCH, **options: int) -> Model:
    return compile_model(module, march, CompileOptions(**{"opt": 0, **options}), stages=stages)


def _same(module: Module, model: Model, seed: int = 0) -> bool:
    feed = example_feeds(module[0], seed)
    expected = module[0].feed(feed)
    return all(
        np.ascontiguousarray(found[name]).tobytes() == np.ascontiguousarray(value).tobytes()
        for found in (bind(model).run(feed), bind(model, check=True).run(feed))
        for name, value in expected.items()
    )


@pytest.mark.parametrize("name", NAMES)
def test_drawn_decisions_change_the_program_and_not_the_numbers(name: str) -> None:
    module = small_network(name)[0]
    stock = _built(module, Stages())
    models = [_built(module, varied(seed), SMALL if seed % 2 else MARCH) for seed in range(8)]
    assert all(_same(module, model, seed) for seed, model in enumerate(models))
    programs = {model.program.instructions.tobytes() + model.program.views.tobytes() for model in [stock, *models]}
    assert len(programs) == 9
    assert len({len(model.program) for model in models}) >= 3
    assert len({model.memories for model in models}) >= 4


@settings(max_examples=15)
@given(module=modules(("quantized",), 5), seed=st.integers(0, 999), memory=st.sampled_from((0, 8 << 10, 24 << 10)))
def test_any_module_any_plan(module: Module, seed: int, memory: int) -> None:
    march = replace(MARCH, l1m_bytes=memory) if memory else MARCH
    try:
        model = _built(module, varied(seed), march)
    except HbError as error:
        # Functions that are no table yet, and layers too large for a march this small.
        assert error.code in ("HB0515", "HB0521", "HB0541")
        return
    assert _same(module, model, seed)


def test_several_cores_and_shared_memory() -> None:
    module = small_network("residual", "nash-p")[0]
    march = load_march("nash-p")
    for seed in range(6):
        model = _built(module, varied(seed), march, cores=march.cores, l2m_bytes=march.l2m_bytes)
        assert _same(module, model, seed)


def test_every_kind_of_decision_is_drawn() -> None:
    """Uneven cuts, pieces of channels and of the window, groups, homes, orders, gaps."""
    graph = lower(small_network("residual")[0], MARCH)
    stock = tile(graph, MARCH)
    seen: set[str] = set()
    for seed in range(40):
        drawn = varied(seed)
        plan = drawn.tile(graph, MARCH, variation.TileOptions())
        found = {
            "uneven": any(len({b - a for a, b in node.tiles}) > 1 for node in plan.nodes),
            "chunks": any(len(node.chunks) > 1 for node in plan.nodes),
            "channels": any(len({piece.channels for piece in node.pieces}) > 1 for node in plan.nodes),
            "window": any(len({piece.rows for piece in node.pieces}) > 1 for node in plan.nodes),
            "outer": any(node.outer == "chunks" for node in plan.nodes),
            "group": bool(plan.groups),
            "home": plan.spaces.count("DDR") > stock.spaces.count("DDR"),
        }
        tasks = drawn.schedule(graph, plan, MARCH)
        in_order = schedule(graph, plan, MARCH, transfer=0)
        found["order"] = [task.opcode for task in tasks.tasks] != [task.opcode for task in in_order.tasks]
        where = drawn.allocate(tasks, MARCH)
        sizes = sum(-(-b.size // 64) * 64 for b in tasks.buffers if b.space == "CONST")
        found["gaps"] = where.constants > sizes
        seen |= {name for name, there in found.items() if there}
    assert seen == {"uneven", "chunks", "channels", "window", "outer", "group", "home", "order", "gaps"}


def test_the_same_seed_gives_the_same_model() -> None:
    module = small_network("residual")[0]
    first, again = (_built(module, varied(3)) for _ in range(2))
    assert first.program.instructions.tobytes() == again.program.instructions.tobytes()
    assert first.memories == again.memories


def test_an_order_that_forgets_a_dependency_would_be_noticed() -> None:
    """The comparison is not blind: with tasks in an order that is not legal, results differ or are refused."""

    def illegal(*arguments: object, **options: object) -> Schedule:
        legal = schedule(*arguments, **options)  # pyright: ignore[reportArgumentType]
        compute = [i for i, task in enumerate(legal.tasks) if task.opcode == "CONV"]
        order = list(range(len(legal.tasks)))
        order[compute[0]], order[compute[-1]] = compute[-1], compute[0]
        return Schedule(legal.buffers, tuple(legal.tasks[i] for i in order))

    module = small_network("chain")[0]
    try:
        model = _built(module, Stages(schedule=illegal))
        wrong = not _same(module, model)
    except HbError:
        wrong = True
    assert wrong


def test_what_the_stock_decisions_refuse_is_refused() -> None:
    module = small_network("chain")[0]
    tiny = replace(MARCH, l1m_bytes=1024)
    with pytest.raises(HbError, match="HB0521"):
        _built(module, Stages(), tiny)
    with pytest.raises(HbError, match="HB0521"):
        _built(module, varied(1), tiny)
