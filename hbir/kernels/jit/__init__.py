"""Compiled loops behind the kernels. Importing a module of this room imports numba; the kernels do so on first use.

Machine code is cached by the time stamp of the file that holds a loop. Whoever edits what loops share (`simd`, `epilogue`,
`vectors`, `memory`, `compile`, `hbir.numerics.rescale`) removes `hbir/kernels/jit/__pycache__`, because the cache does not see
that change.
"""
