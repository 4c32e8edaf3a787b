"""Published names: `export`, `pre_export`, and the pytrees of exported modules."""

from __future__ import annotations

from hbir.torch.exporting.export import export, get_hbir_input_flattener, get_hbir_output_unflattener
from hbir.torch.exporting.fixed_tables import FixedTable, fixed_tables, pre_export

__all__ = [
    "FixedTable",
    "export",
    "fixed_tables",
    "get_hbir_input_flattener",
    "get_hbir_output_unflattener",
    "pre_export",
]
