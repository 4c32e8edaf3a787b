"""The trace of a run: one section for each pass, with what it changed and who did it, also when a pass fails."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from hbir import export
from hbir.errors import PassError
from hbir.module import Module
from passes import Pass, Pipeline, Promise

TINY = "tests/data/tiny.onnx"
STEPS = "fold-constants{largest=12},canonicalize,cancel-transposes,fuse-conv-add-relu,dead-code"


@dataclass(frozen=True)
class Fails(Pass):
    """Raises."""

    name: ClassVar[str] = "fails"
    promise: ClassVar[Promise] = Promise.EXACT

    def run(self, module: Module) -> None:
        raise PassError(99, "planted")


def sections(page: str) -> dict[str, str]:
    """The text of each section, by its heading."""
    found = re.findall(r"<section[^>]*><div class=\"head\"><h2>(.*?)</h2>(.*?)</section>", page, re.DOTALL)
    return {title: re.sub("<[^>]*>", " ", text) for title, text in found}


def test_each_pass_has_its_section(tmp_path: Path) -> None:
    path = tmp_path / "trace.html"
    Pipeline(STEPS, trace=path).run(export(TINY))
    found = sections(path.read_text("utf-8"))
    assert list(found) == STEPS.split(",")
    assert "hbir.conv2d" in found["fuse-conv-add-relu"] and "hbir.clip" in found["fuse-conv-add-relu"]
    assert "operations" in found["canonicalize"] and "promises" in found["canonicalize"]
    assert "Nothing differs" in found["dead-code"] and "hbir." not in found["dead-code"].split("promises")[1]


def test_a_failing_run_leaves_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "trace.html"
    with pytest.raises(PassError, match="planted"):
        Pipeline(["canonicalize", Fails()], trace=path).run(export(TINY))
    assert list(sections(path.read_text("utf-8"))) == ["canonicalize"]
