"""Judges from outside the project: programs that compute the same operations independently, so that tests can compare.

`tosa` runs Arm's TOSA reference model on integers (compare with `==`), `tosa_cases` its generated conformance cases;
`assert_agrees_with_onnxruntime` runs the ONNX model that a module was imported from. They need the extra `test`::

    from hbir.testing.oracles import assert_agrees_with_onnxruntime, tosa

    assert_agrees_with_onnxruntime("model.onnx", hbir.export("model.onnx"), [{"x": x}])
    assert np.array_equal(hbir.kernels.clz(x), tosa.clz(x))
"""

from __future__ import annotations

from hbir.testing.oracles.onnx_runtime import assert_agrees_with_onnxruntime
from hbir.testing.oracles.packages import import_test_package

__all__ = ["assert_agrees_with_onnxruntime", "import_test_package"]
