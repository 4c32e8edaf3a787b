"""Judges from outside the project: programs that compute the same operations independently, so that tests can compare.

`assert_agrees_with_tosa` and `tosa_outputs` run a whole integer function through Arm's TOSA reference model (compare with
`==`); `tosa` gives it single operations, `tosa_cases` its generated conformance cases; `assert_agrees_with_onnxruntime` runs
the ONNX model that a module was imported from. They need the extra `test`::

    from hbir.testing.oracles import assert_agrees_with_onnxruntime, assert_agrees_with_tosa, tosa

    assert_agrees_with_onnxruntime("model.onnx", hbir.export("model.onnx"), [{"x": x}])
    assert_agrees_with_tosa(convert(calibrated, "nash-e"), {"x": x})
    assert np.array_equal(hbir.kernels.clz(x), tosa.clz(x))
"""

from __future__ import annotations

from hbir.testing.oracles.onnx_runtime import assert_agrees_with_onnxruntime
from hbir.testing.oracles.packages import import_test_package
from hbir.testing.oracles.tosa_function import assert_agrees_with_tosa, tosa_outputs

__all__ = ["assert_agrees_with_onnxruntime", "assert_agrees_with_tosa", "import_test_package", "tosa_outputs"]
