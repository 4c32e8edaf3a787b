"""The ONNX reader: `export` turns a model into a `Module` of float NHWC operations and fake quantisation.

Package `onnx` is imported when a model is read, not before. A converter per operator and opset stands in the file of
its family; `registry` derives the table of what can be imported from them.
"""

from hbir.frontends.onnx.importer import export
from hbir.frontends.onnx.registry import supported_operators

__all__ = ["export", "supported_operators"]
