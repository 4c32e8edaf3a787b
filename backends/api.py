"""`compile`, `link`, `hbm_perf` and the handle `Hbm`: the Python face of the backends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy.typing as npt

from backends.nash import hbm as container
from backends.nash.compiler import CompileOptions, compile_model
from backends.nash.hbm.model import Model, Tensor, verify_model
from backends.nash.simulator.functional import Bound, bind
from hbir.errors import BackendError
from hbir.march import March, load_march
from hbir.module import Module

__all__ = ["Hbm", "HbmFunction", "compile", "hbm_perf", "link"]

Array = npt.NDArray[Any]


class HbmFunction:
    """One model of a binary; `feed` runs it on the functional simulator."""

    def __init__(self, model: Model) -> None:
        self.model = model

    @property
    def name(self) -> str:
        """The function's name."""
        return self.model.name

    @property
    def flatten_inputs(self) -> list[Tensor]:
        """The inputs: name, shape, dtype, quantisation, address and strides."""
        return list(self.model.inputs)

    @property
    def flatten_outputs(self) -> list[Tensor]:
        """The outputs."""
        return list(self.model.outputs)

    @cached_property
    def _bound(self) -> Bound:
        return bind(self.model)

    def feed(self, inputs: Mapping[str, Array], *, check: bool = False) -> dict[str, Array]:
        """Named outputs for named inputs, which must have the model's dtypes and shapes.

        With `check`, memory is poisoned and the queues run in an adversarial order: for tests of the compiler.
        """
        bound = bind(self.model, check=True) if check else self._bound
        return bound.run(inputs)

    def __call__(self, *arrays: Array) -> tuple[Array, ...]:
        """Outputs in order for inputs in order."""
        names = [tensor.name for tensor in self.model.inputs]
        if len(arrays) != len(names):
            raise BackendError(61, f"{len(arrays)} arrays for {len(names)} inputs", lever="one array for each input")
        results = self.feed(dict(zip(names, arrays, strict=True)))
        return tuple(results[tensor.name] for tensor in self.model.outputs)


class Hbm:
    """A `.hbm` file, read and verified. Raises FileFormatError or SimulationError for a damaged or illegal one."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.models = container.read(self.path)
        for model in self.models:
            verify_model(model)

    @cached_property
    def functions(self) -> list[HbmFunction]:
        """The models, in order."""
        return [HbmFunction(model) for model in self.models]

    @property
    def graphs(self) -> list[HbmFunction]:
        """The same as `functions`."""
        return self.functions

    def __getitem__(self, key: int | str) -> HbmFunction:
        if isinstance(key, int):
            return self.functions[key]
        for function in self.functions:
            if function.name == key:
                return function
        names = [function.name for function in self.functions]
        raise BackendError(62, f"there is no model '{key}' in {self.path.name}", lever=f"choose one of {names}")

    @property
    def march_name(self) -> str:
        """The march that the first model was compiled for."""
        return self.models[0].march.name

    @property
    def toolkit_version(self) -> str:
        """The version that compiled it."""
        return self.models[0].tool_version

    @property
    def desc(self) -> str:
        """The user's text."""
        return self.models[0].description


def compile(
    module: Module,
    path: str | Path,
    march: str | Path | March,
    opt: int = 2,
    *,
    balance: int = 100,
    core_num: int = 1,
    max_l2m_size: int | None = 0,
    debug: bool = True,
    desc: str = "",
    progress: Callable[[str, float], None] | None = None,
) -> Hbm:
    """Compile a quantised module (see `passes.convert`) and write `path`, which ends in `.hbm`.

    `opt` 0 to 2: how hard to search. `balance` 0 (least DDR traffic) to 100 (fewest cycles). `core_num` cores share each
    frame (with opt 2, one core alone takes it where that is faster). `max_l2m_size`: bytes of L2M for activations, 0 for
    none, None for all that the march has. `debug` keeps layer
    names. `progress(stage, share done)` is called along the way. Raises BackendError.
    """
    path = Path(path)
    if path.suffix != ".hbm":
        raise BackendError(63, f"cannot compile to {path.name}", lever="choose a name that ends in .hbm")
    target = load_march(march)
    if module.march is not None and module.march != target.name:
        raise BackendError(
            64,
            f"the module was converted for {module.march}, not for {target.name}",
            why="multiplier widths and precisions differ between marches",
            lever=f"convert it for {target.name}, or compile for {module.march}",
        )
    l2m = target.l2m_bytes if max_l2m_size is None else max_l2m_size
    options = CompileOptions(opt, balance, core_num, l2m, debug, desc)
    model = compile_model(module, target, options, progress)
    container.write([model], path)
    return Hbm(path)


def link(parts: Sequence[Hbm | str | Path], path: str | Path) -> Hbm:
    """One file with the models of several. Raises FileFormatError for two models of one name."""
    models = [model for part in parts for model in (part if isinstance(part, Hbm) else Hbm(part)).models]
    container.link(models, path)
    return Hbm(path)


def hbm_perf(path: str | Path, output_dir: str | Path | None = None) -> int:
    """Static performance estimate: writes HTML, JSON, trace and CSV for every model; 0 when it worked."""
    from backends.nash import perf

    return perf.hbm_perf(path, output_dir)
