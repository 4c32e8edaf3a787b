"""From traced calls to a module of the dialects hbir and qat."""
