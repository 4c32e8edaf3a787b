"""One generated module on its whole way: passes, compiler with drawn decisions, binary, simulator; every bit compared.

Everything about a case follows from its seed. `choices` replace those that the seed makes for the module, which is how a case
is made smaller and kept in a file.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from backends import Hbm
from backends.nash import hbm as container
from backends.nash.compiler import CompileOptions, Stages, compile_model
from backends.nash.hbm import Model
from backends.nash.simulator.functional import bind
from backends.nash.variation import varied
from hbir import save
from hbir.dialects.base import Array
from hbir.dialects.quantized import FunctionOp
from hbir.errors import BackendError, CalibrationError, HbError, PassError
from hbir.march import MARCHES, March, load_march
from hbir.module import Module
from hbir.testing import Seeded, example_feeds, generate
from passes import Pipeline, calibrate, convert
from passes.convert import convert_pipeline
from tests.fuzz.promises import DIALECTS, keep_promise

__all__ = ["KINDS", "Case", "MismatchError", "Outcome", "keep", "reduced", "run", "stored"]

KINDS = ("quantized", "fake-quant", "calibrated", "promise")
"""Integers as generated; fake quantisation and the stock passes; calibration first; one pass against its promise."""

_WEIGHTS = (60, 20, 8, 12)

REFUSALS = {
    "HB0313": "a bias that does not fit the accumulator",
    "HB0321": "a sum of int16 activations beyond the 32 bits that bayes has",
    "HB0323": "a function that no table follows over the range of its input",
    "HB0331": "no number that a grid could have",
    "HB0401": "an activation that is infinite",
    "HB0516": "a module without any integer work: only the host would run",
    "HB0517": "a tensor with more axes than an instruction addresses",
    "HB0521": "the smallest tile of a layer does not fit a march that is drawn this small",
    "HB0541": "L1M is too small for what lives in it at one time",
}
"""Codes that may end a case without a fault of the compiler; a case that ends so has not passed, and is counted apart."""


class MismatchError(Exception):
    """The simulator's numbers are not the interpreter's."""


@dataclass(frozen=True)
class Case:
    """A module and what is done with it. `choices`: those of the module, instead of the seed's; `plan`: the seed of the
    compiler's decisions, instead of the case's."""

    seed: int
    choices: tuple[int, ...] | None = None
    plan: int | None = None


@dataclass(frozen=True)
class _Setting:
    """Everything about a case but its module."""

    kind: str
    march: March
    options: CompileOptions
    dialects: tuple[str, ...]
    most: int
    checked: bool
    filed: bool
    stock: bool
    verify: str
    promise: str


@dataclass(frozen=True)
class Outcome:
    """How a case ended: `passed`, `refused` with a code, or `failed` with what a person needs to know. `operations` are
    those of the module that was compiled, or changed by a pass."""

    kind: str
    state: str
    operations: int = 0
    code: str = ""
    signature: str = ""
    problem: str = ""


def _module(case: Case, setting: _Setting, made: list[int]) -> Module:
    """The generated module; `made` receives its choices."""
    choices = Seeded(case.seed, case.choices)
    module = generate(choices, setting.dialects, setting.most)
    made[:] = choices.made
    return module


@cache
def _pipeline(text: str, verify: str) -> Pipeline:
    return Pipeline(text, verify=verify)  # pyright: ignore[reportArgumentType]


@cache
def _march(name: str, l1m_bytes: int) -> March:
    march = load_march(name)
    return replace(march, l1m_bytes=l1m_bytes) if l1m_bytes else march


def _setting(case: Case) -> _Setting:
    rng = random.Random(case.seed)
    kind = rng.choices(KINDS, _WEIGHTS)[0]
    # A stock march with its memory, or with so little that tiles are needed.
    march = _march(rng.choice(MARCHES), rng.choice((0, 0, 4 << 10, 8 << 10, 16 << 10, 40 << 10)))
    options = CompileOptions(
        opt=rng.choices((0, 1, 2), (8, 2, 1))[0],
        balance=rng.choice((100, 100, 0)),
        cores=rng.choice((1, 1, march.cores)),
        l2m_bytes=rng.choice((0, 0, march.l2m_bytes, march.l2m_bytes // 2)),
        debug=rng.random() < 0.5,
    )
    promise = rng.choice(sorted(DIALECTS))
    mixed = ("quantized",) if rng.random() < 0.7 else ("quantized", "quantized", "hbir")
    dialects = {
        "quantized": mixed,
        "fake-quant": ("hbir", "qat"),
        "calibrated": ("hbir",),
        "promise": DIALECTS[promise],
    }
    return _Setting(
        kind,
        march,
        options,
        dialects[kind],
        most=rng.choice((3, 6, 6, 10)),
        checked=rng.random() < 0.15,
        filed=rng.random() < 0.05,
        stock=rng.random() < 0.2,
        verify="exec" if rng.random() < 0.03 else "none",
        promise=promise,
    )


def _integers(case: Case, setting: _Setting, module: Module) -> Module:
    """The module that the compiler takes."""
    march, verify = setting.march, setting.verify
    if setting.kind == "quantized":
        if any(isinstance(op, FunctionOp) for op in module[0].operations):
            return _pipeline("fix-lut,fold-requantize,narrow-movement,dead-code", verify).run(module)
        return module
    if setting.kind == "fake-quant":
        text = convert_pipeline(march).replace("unify-scales", "insert-fake-quant,unify-scales")
        return _pipeline(text, verify).run(module)
    feeds = [example_feeds(module[0], case.seed + number) for number in range(2)]
    return convert(calibrate(module, feeds), march, verify=verify)  # pyright: ignore[reportArgumentType]


def _compile(module: Module, march: March, options: CompileOptions, plan: int | None) -> Model:
    """With drawn decisions; with the stock ones where those do not fit."""
    if plan is not None:
        try:
            return compile_model(module, march, options, stages=varied(plan))
        except BackendError as error:
            if error.code not in REFUSALS:
                raise
    return compile_model(module, march, options, stages=Stages())


def _through_file(model: Model) -> Model:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.hbm"
        container.write([model], path)
        return Hbm(path).models[0]


def _compare(expected: dict[str, Array], found: dict[str, Array], how: str) -> None:
    if list(found) != list(expected):
        raise MismatchError(f"{how}: outputs {list(found)} instead of {list(expected)}")
    for name, value in expected.items():
        got = found[name]
        if (got.dtype, got.shape) != (value.dtype, value.shape):
            raise MismatchError(f"{how}: output '{name}' is {got.dtype}{got.shape}, not {value.dtype}{value.shape}")
        # Bytes, not values: -0.0 and 0.0 differ, and so do NaNs.
        if np.ascontiguousarray(got).tobytes() != np.ascontiguousarray(value).tobytes():
            wrong = np.count_nonzero((got != value) & ~((got != got) & (value != value)))
            raise MismatchError(f"{how}: output '{name}': {wrong} of {value.size} elements differ")


def _road(case: Case, setting: _Setting, generated: Module) -> int:
    """A module through compiler and simulator; the number of its operations."""
    module = _integers(case, setting, generated)
    plan = case.plan if case.plan is not None else case.seed
    model = _compile(module, setting.march, setting.options, None if setting.stock else plan)
    if setting.filed:
        model = _through_file(model)
    feed = example_feeds(module[0], case.seed)
    expected = module[0].feed(feed)
    _compare(expected, bind(model).run(feed), "simulator")
    if setting.checked:
        _compare(expected, bind(model, check=True).run(feed), "simulator with poisoned memory")
    return len(module[0].operations)


def _promise(setting: _Setting, module: Module) -> int:
    keep_promise(setting.promise, module)
    return len(module[0].operations)


def run(case: Case, made: list[int] | None = None) -> Outcome:
    """Run one case. `made` receives the choices of its module. Never raises what the product raises: it tells it."""
    setting = _setting(case)
    kind = setting.kind
    try:
        module = _module(case, setting, made if made is not None else [])
        count = _promise(setting, module) if kind == "promise" else _road(case, setting, module)
    except (BackendError, CalibrationError, PassError) as error:
        if error.code in REFUSALS:
            return Outcome(kind, "refused", code=error.code)
        return Outcome(kind, "failed", code=error.code, signature=error.code, problem=str(error))
    except HbError as error:
        return Outcome(kind, "failed", code=error.code, signature=error.code, problem=str(error))
    except MismatchError as error:
        return Outcome(kind, "failed", signature="mismatch", problem=str(error))
    except Exception as error:  # noqa: BLE001 - any other exception is a crash, which is what is looked for
        name = type(error).__name__
        return Outcome(kind, "failed", signature=f"{name} {_place(error)}", problem=f"{name}: {str(error)[:500]}")
    return Outcome(kind, "passed", count)


def _place(error: BaseException) -> str:
    """The innermost line of the project that an exception passed through."""
    trace, found = error.__traceback__, ""
    root = Path(__file__).resolve().parents[2]
    while trace is not None:
        path = Path(trace.tb_frame.f_code.co_filename)
        if path.is_relative_to(root):
            found = f"{path.relative_to(root)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found


def reduced(case: Case, seconds: float = 20.0) -> Case:
    """A case with fewer and smaller choices that still fails in the same way."""
    made: list[int] = []
    first = run(case, made)
    end = time.monotonic() + seconds
    best = replace(case, choices=tuple(made))
    if not made or run(best).signature != first.signature:
        return case

    def fails(choices: Sequence[int]) -> bool:
        nonlocal best
        if time.monotonic() > end:
            return False
        # Another module has other plans: a few of them may have to be tried.
        for plan in (best.plan, *(case.seed + number for number in range(1, 4))):
            smaller = replace(case, choices=tuple(choices), plan=plan)
            if run(smaller).signature == first.signature:
                best = smaller
                return True
        return False

    _shrink(list(made), fails)
    return best


def _shrink(choices: list[int], fails: Callable[[Sequence[int]], bool]) -> None:
    """Delete runs of choices, then lower single ones, as long as that succeeds."""
    again = True
    while again:
        again = False
        for size in (32, 16, 8, 4, 2, 1):
            at = 0
            while at < len(choices):
                shorter = choices[:at] + choices[at + size :]
                if fails(shorter):
                    choices, again = shorter, True
                else:
                    at += size
        for at, value in enumerate(choices):
            for lower in (0, value // 2, value - 1):
                if 0 <= lower < value and fails([*choices[:at], lower, *choices[at + 1 :]]):
                    choices, again = [*choices[:at], lower, *choices[at + 1 :]], True
                    break


def keep(case: Case, outcome: Outcome, folder: Path) -> None:
    """Write a reproducer: `case.json` for `python -m tests.fuzz again`, the modules, and what went wrong."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "case.json").write_text(json.dumps(asdict(case)) + "\n", "utf-8")
    setting = _setting(case)
    lines = [
        f"{outcome.kind}: {outcome.problem}",
        f"{setting.march.name}, {setting.march.l1m_bytes} bytes of L1M",
        str(setting),
    ]
    try:
        module = _module(case, setting, [])
        save(module, folder / "generated.mlir")
        if setting.kind != "promise":
            save(_integers(case, setting, module), folder / "integers.mlir")
    except Exception as error:  # noqa: BLE001 - the failure may be that there is no such module
        lines.append(f"no integer module: {error}")
    (folder / "problem.txt").write_text("\n".join(lines) + "\n", "utf-8")


def stored(path: Path) -> Case:
    """The case of a `case.json`."""
    found = json.loads(path.read_text("utf-8"))
    choices = found["choices"]
    return Case(found["seed"], None if choices is None else tuple(choices), found["plan"])
