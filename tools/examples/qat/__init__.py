"""Quantisation-aware training, by example: each script runs by itself, `python -m tools.examples.qat.NAME`."""
