"""Programs with random damage: the verifier refuses them, or they run to the end; nothing else happens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backends.nash.isa import Program
from backends.nash.simulator import bind, simulate
from hbir.errors import HbError
from tests.backends.nash.samples import ConvLayer, pool_model, tiled_conv_model


@pytest.mark.parametrize("seed", range(4))
def test_damaged_programs_are_refused_or_harmless(seed: int) -> None:
    rng = np.random.default_rng(seed)
    chain = tiled_conv_model([ConvLayer.random(rng, 8, 3, 8), ConvLayer.random(rng, 4, 1, 8)], 8, 8, 4)
    refused = 0
    for model in (pool_model(), chain):
        inputs = {t.name: np.zeros(t.shape, np.int8) for t in model.inputs}
        for _ in range(60):
            instructions, views = model.program.instructions.copy(), model.program.views.copy()
            # Small numbers are the dangerous ones: they stay plausible.
            table = views if rng.random() < 0.6 else instructions
            record = table[rng.integers(len(table)) :][:1].view(np.uint8)
            record[rng.integers(record.size)] = rng.choice([0, 1, 2, 3, 8, 16, 64, 127, 128, 255])
            damaged = replace(model, program=Program(instructions, views, model.program.layers))
            try:
                bound = bind(damaged)
            except HbError as error:
                refused += 1
                assert error.code[:4] in ("HB06", "HB07")
                continue
            simulate(damaged)
            bound.run(inputs)
            # What the verifier accepts is right in every order that the events allow.
            expected = bound.run(inputs)
            found = bind(damaged, check=True).run(inputs)
            assert all(np.array_equal(expected[name], found[name]) for name in expected)
    assert refused > 60
