"""Published name: `export` and the pytrees of exported modules."""

from __future__ import annotations

from hbir.torch.exporting.export import export, get_hbir_input_flattener, get_hbir_output_unflattener

__all__ = ["export", "get_hbir_input_flattener", "get_hbir_output_unflattener"]
