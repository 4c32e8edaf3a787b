"""One look at a prepared model before its accuracy is measured: fusion, shared modules, settings, and oddities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hbir.torch.debugging.fusion import (
    CalledModule,
    UnfusedOperation,
    called_table,
    get_module_called_count,
    unfused,
    unfused_table,
)
from hbir.torch.debugging.qconfig_report import QconfigRow, expectations, qconfig_rows, qconfig_tables
from hbir.torch.debugging.recording import checked_prepared, run
from hbir.torch.debugging.tables import Table, write_text
from hbir.torch.preparing.prepare import choices_of

__all__ = ["ModelCheck", "check_qat_model"]


@dataclass(frozen=True)
class ModelCheck:
    """What a prepared model is made of."""

    unfused: tuple[UnfusedOperation, ...]
    called: tuple[CalledModule, ...]
    qconfig: tuple[QconfigRow, ...]

    def tables(self) -> tuple[Table, ...]:
        """The sections of `model_check_result.txt`."""
        return (
            unfused_table(self.unfused),
            called_table(self.called),
            *qconfig_tables(self.qconfig),
            expectations(self.qconfig),
        )

    def write(self, folder: str | Path) -> tuple[Path, ...]:
        """Write `model_check_result.txt` and `qconfig_info.txt`; the folder is made where it is missing."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        paths = target / "model_check_result.txt", target / "qconfig_info.txt"
        write_text(paths[0], self.tables())
        write_text(paths[1], (*qconfig_tables(self.qconfig), _outputs(self.qconfig)))
        return paths


def _outputs(rows: Sequence[QconfigRow]) -> Table:
    """What leaves, and how."""
    cells = tuple((row.name, row.kind, row.output, _verdict(row)) for row in rows if row.leaves)
    return Table("outputs", "What leaves through a DeQuantStub:", ("name", "operation", "output", "remark"), cells)


def _verdict(row: QconfigRow) -> str:
    if row.high_precision:
        return "high precision"
    return "rounded; a plain layer there would leave in high precision"


def check_qat_model(model: Any, example_inputs: Any, out_dir: str | Path | None = None) -> ModelCheck:
    """Check a prepared model on the arguments of one call; with `out_dir` the two text files are written there.

    Raises TrainingError HB0970 for a model that is not prepared.
    """
    prepared = checked_prepared(model, "check_qat_model")
    calls = run(prepared, example_inputs)[0].calls
    found = ModelCheck(
        tuple(unfused(calls, prepared=True)),
        tuple(get_module_called_count(prepared, example_inputs)),
        tuple(qconfig_rows(calls, choices_of(prepared))),
    )
    if out_dir is not None:
        found.write(out_dir)
    return found
