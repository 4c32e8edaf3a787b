"""Compiled loops behind the kernels. Importing a module of this room imports numba; the kernels do so on first use."""
