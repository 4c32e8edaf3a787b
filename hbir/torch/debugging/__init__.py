"""Why a quantised model is worse than its float model: reports on its settings, its values, and the effect of each grid.

Every tool is a function that gives frozen records. A record says its tables; tables are written as text, as CSV, and
together as one HTML page. Models are run as they are, in evaluation mode, and get their modes and states back.
Published names are in `hbir.torch.profiler`.
"""
