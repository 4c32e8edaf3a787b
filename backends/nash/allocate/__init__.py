"""Addresses from live ranges: `allocate(schedule, march) -> Addresses`."""

from backends.nash.allocate.addresses import Addresses, allocate

__all__ = ["Addresses", "allocate"]
