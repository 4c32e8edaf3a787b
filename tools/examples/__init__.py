"""Small programs that make complete examples to try the compiler on: data, labels and a configuration file."""

from __future__ import annotations

__all__: list[str] = []
