"""The reference pages: what the source, the registries and the tables say about every name, operation, pass and error code."""

from tools.reference.pages import build_reference

__all__ = ["build_reference"]
