"""`compile`, `link`, `hbm_perf` and the handle `Hbm`: the Python face of the backends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy.typing as npt

from backends.nash import hbm as container
from backends.nash.compiler import CompileOptions, compile_model
from backends.nash.hbm.model import Model, Tensor, verify_model
from backends.nash.simulator.functional import Bound, bind
from hbir.arguments import Refuse, checked_index, checked_kind, checked_path, checked_text, shown
from hbir.errors import BackendError
from hbir.march import March, load_march
from hbir.module import Module, checked_module

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

        With `check`, memory is poisoned and the queues run in an adversarial order: for tests of the compiler. Raises
        BackendError HB0561 for what is no dictionary, SimulationError HB0708 or HB0709 for names or arrays that do not fit.
        """
        if not isinstance(inputs, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise self._misfit(f"the inputs are {shown(inputs)}", "it takes a dictionary")
        bound = bind(self.model, check=True) if check else self._bound
        return bound.run(inputs)

    def __call__(self, *arrays: Array) -> tuple[Array, ...]:
        """Outputs in order for inputs in order."""
        names = [tensor.name for tensor in self.model.inputs]
        if len(arrays) != len(names):
            raise self._misfit(f"{len(arrays)} arrays for {len(names)} inputs", "")
        results = self.feed(dict(zip(names, arrays, strict=True)))
        return tuple(results[tensor.name] for tensor in self.model.outputs)

    def _misfit(self, what: str, why: str) -> BackendError:
        names = [tensor.name for tensor in self.model.inputs]
        lever = f"give one array for each of {names}"
        return BackendError(61, what, where=f"model '{self.name}'", why=why, lever=lever)


class Hbm:
    """A `.hbm` file, read and verified. Raises FileFormatError or SimulationError for a damaged or illegal one."""

    def __init__(self, path: str | Path) -> None:
        self.path = _checked_path(path, "a binary is read from", "give the path of an .hbm file")
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
        """A model by position (from the end when negative) or by name. Raises BackendError HB0562."""
        names = [function.name for function in self.functions]
        lever = f"choose one of {names}, or a position below {len(names)}"
        if isinstance(key, str) and key in names:
            return self.functions[names.index(key)]

        def refuse(given: str, why: str) -> BackendError:
            why = "" if isinstance(key, str) else why
            return BackendError(62, f"there is no model {given}", where=self.path.name, why=why, lever=lever)

        index = checked_index(key, refuse)
        if not -len(names) <= index < len(names):
            raise refuse(str(index), f"the file has {len(names)}")
        return self.functions[index]

    def __iter__(self) -> Iterator[HbmFunction]:
        return iter(self.functions)

    def __len__(self) -> int:
        return len(self.functions)

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


def _checked_path(path: object, what: str, lever: str) -> Path:
    return checked_path(path, lambda given, why: BackendError(63, f"{what} {given}", why=why, lever=lever))


def _written_path(path: object) -> Path:
    """The path of a binary that is to be written."""
    lever = "choose a name that ends in .hbm"
    checked = _checked_path(path, "a binary is written to", lever)
    if checked.suffix != ".hbm":
        raise BackendError(63, f"a binary is written to {checked.name}", lever=lever)
    return checked


def _unfit(option: str, lever: str) -> Refuse:
    return lambda given, why: BackendError(51, f"{option} is {given}", why=why, lever=lever)


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
    none, None for all that the march has. `debug` keeps layer names. `desc` is kept in the file. `progress(stage, share
    done)` is called along the way. Raises BackendError, and IrError HB0236 for what is no module.
    """
    checked_module(module)
    path, target = _written_path(path), load_march(march)
    l2m_size = target.l2m_bytes if max_l2m_size is None else max_l2m_size
    options = CompileOptions(
        checked_index(opt, _unfit("opt", "choose 0, 1 or 2")),
        checked_index(balance, _unfit("balance", "choose 0 (least DDR) to 100 (fastest)")),
        checked_index(core_num, _unfit("core_num", f"choose 1 to {target.cores}")),
        checked_index(l2m_size, _unfit("max_l2m_size", f"choose 0 to {target.l2m_bytes}, or None for all")),
        checked_kind(debug, bool, _unfit("debug", "choose True or False")),
        checked_text(desc, _unfit("desc", "give a text")),
    )
    if progress is not None and not callable(progress):
        raise _unfit("progress", "give a function, or leave it out")(shown(progress), "it takes a function")
    if module.march is not None and module.march != target.name:
        raise BackendError(
            64,
            f"the module was converted for {module.march}, not for {target.name}",
            why="multiplier widths and precisions differ between marches",
            lever=f"convert it for {target.name}, or compile for {module.march}",
        )
    model = compile_model(module, target, options, progress)
    container.write([model], path)
    return Hbm(path)


def link(parts: Sequence[Hbm | str | Path], path: str | Path) -> Hbm:
    """One file with the models of several.

    Raises BackendError HB0563 for a path that cannot be, HB0565 for parts that are no list of binaries, and FileFormatError
    for a damaged part or two models of one name.
    """
    target = _written_path(path)
    lever = "give a list of Hbm objects or paths of .hbm files"
    if isinstance(parts, str) or not isinstance(parts, Sequence):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise BackendError(65, f"the parts are {shown(parts)}", lever=lever)
    if not parts:
        raise BackendError(65, "there is nothing to link", lever=lever)
    models = [model for part in parts for model in (part if isinstance(part, Hbm) else Hbm(part)).models]
    container.link(models, target)
    return Hbm(target)


def hbm_perf(path: str | Path, output_dir: str | Path | None = None) -> int:
    """Static performance estimate: writes HTML, JSON, trace and CSV for every model; 0 when it worked.

    The files go to `output_dir`, by default to the binary's folder. Raises BackendError HB0563 for what is no path, and what
    `Hbm` raises; ConfigError HB0801 for a folder that cannot be written.
    """
    from backends.nash import perf

    binary = _checked_path(path, "a binary is read from", "give the path of an .hbm file")
    folder = None if output_dir is None else _checked_path(output_dir, "reports are written to", "give a folder")
    return perf.hbm_perf(binary, folder)
