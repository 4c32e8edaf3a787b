"""The forms of inputs and outputs: namedtuples and constants, in this process and in another one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import OrderedDict, defaultdict, deque, namedtuple
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils import _pytree as pytree
from xdsl.dialects.builtin import DenseArrayBase, StringAttr, i64

from hbir.errors import TrainingError
from hbir.module import load, save
from hbir.torch import March, set_march
from hbir.torch.exporting import pytrees
from hbir.torch.quantization import DeQuantStub, FakeQuantState, QuantStub, hbdk4, prepare, set_fake_quantize
from passes import convert
from tests.hbir.torch import states

Empty = namedtuple("Empty", [])


class Pair(NamedTuple):
    a: Any
    b: Any

    @property
    def both(self) -> tuple[Any, Any]:
        return self.a, self.b


class Outer:
    class One(NamedTuple):
        only: Any


class Net(nn.Module):
    """Two inputs in a namedtuple; `build` makes the outputs of the two values that leave."""

    def __init__(self, build: Any) -> None:
        super().__init__()
        self.quants, self.dequants = nn.ModuleList([QuantStub(), QuantStub()]), DeQuantStub()
        self.dequant_b, self.fc, self.build = DeQuantStub(), nn.Linear(4, 4), build

    def forward(self, given: Any) -> Any:
        a, b = self.quants[0](given[0]), self.quants[1](given[1])
        return self.build(self.dequants(self.fc(a)), self.dequant_b(a * b))


@pytest.fixture(autouse=True)
def march() -> None:
    set_march(March.NASH_E)


def validated(build: Any, given: Any) -> nn.Module:
    return states.validated(prepare(Net(build).eval(), (given,)), given)


def pair() -> Pair:
    generator = torch.Generator().manual_seed(2)
    return Pair(torch.randn(1, 4, generator=generator), torch.randn(1, 4, generator=generator))


def same(one: Any, other: Any) -> bool:
    leaves, spec = pytree.tree_flatten(one)
    others, form = pytree.tree_flatten(other)
    return spec == form and all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else (a == b and type(a) is type(b))
        for a, b in zip(leaves, others, strict=True)
    )


BUILDS: dict[str, Any] = {
    "namedtuple": Pair,
    "nested": lambda a, b: {"x": [Pair(Outer.One(b), (a,))], "y": Outer.One(a)},
    "namedtuple of a dictionary": lambda a, b: Pair(OrderedDict(v=b), {"w": a}),
    "constants": lambda a, b: (None, a, 3, "text", True, 0.5, b),
    "namedtuple of constants": lambda a, b: Pair(None, [b, Pair(a, "x")]),
    "number alone": lambda a, b: [1],
    "plain": lambda a, b: [b, (a, b)],
    "shape": lambda a, b: (a, *a.shape),
}


@pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)
def test_outputs_come_back_in_their_form(build: Any, tmp_path: Path) -> None:
    x = pair()
    model = validated(build, x)
    expected = model(x)
    module = hbdk4.export(model, (x,))
    integers = convert(module, March.NASH_E)
    save(integers, tmp_path / "integers.bc")
    for each in (integers, load(tmp_path / "integers.bc")):
        results = each[0](*(leaf.numpy() for leaf in hbdk4.get_hbir_input_flattener(each)(x)))
        got = hbdk4.get_hbir_output_unflattener(each)(results)
        assert same(got, expected)


def test_the_class_is_the_same_and_inputs_are_checked() -> None:
    x = pair()
    model = validated(Pair, x)
    module = hbdk4.export(model, (x,))
    flatten, unflatten = hbdk4.get_hbir_input_flattener(module), hbdk4.get_hbir_output_unflattener(module)
    assert all(one is other for one, other in zip(flatten(x), x, strict=True))
    found = unflatten([leaf.numpy() for leaf in x])
    assert type(found) is Pair and torch.equal(found.both[1], x.b)
    with pytest.raises(TrainingError, match="HB0924"):
        flatten(tuple(x))
    with pytest.raises(TrainingError, match="HB0924"):
        flatten(Outer.One(x.a))


def test_a_class_within_a_function_is_known_in_this_process() -> None:
    class Local(NamedTuple):
        a: Any
        b: Any

    x = pair()
    module = hbdk4.export(validated(Local, x), (x,))
    assert type(hbdk4.get_hbir_output_unflattener(module)([x.a, x.b])) is Local


SCRIPT = """
import sys, torch
sys.path.insert(0, {folder!r})
from hbir.errors import TrainingError
from hbir.module import load
from hbir.torch.quantization import hbdk4
module = load({file!r})
for ask in (hbdk4.get_hbir_input_flattener, hbdk4.get_hbir_output_unflattener):
    try:
        ask(module)
    except TrainingError as error:
        print(error)
import forms
x = forms.Boxes(torch.zeros(1, 4), torch.ones(1, 4))
found = hbdk4.get_hbir_output_unflattener(module)(list(x))
print(len(hbdk4.get_hbir_input_flattener(module)(x)), type(found) is forms.Boxes, found.score.sum().item())
"""

FORMS = "from typing import Any, NamedTuple\nclass Boxes(NamedTuple):\n    box: Any\n    score: Any\n"


def test_another_process_has_the_class_imported_or_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "forms.py").write_text(FORMS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    boxes = __import__("forms").Boxes
    module = hbdk4.export(validated(boxes, boxes(*pair())), (boxes(*pair()),))
    file = tmp_path / "module.bc"
    save(module, file)
    monkeypatch.delitem(sys.modules, "forms")

    script = SCRIPT.format(folder=str(tmp_path), file=str(file))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    *told, last = done.stdout.splitlines()
    assert len(told) == 2 and all("HB0926" in each and "forms.Boxes" in each for each in told)
    assert last.split() == ["2", "True", "4.0"]


@pytest.mark.parametrize(
    ("name", "fields", "why"),
    [
        ("no_such_module:Pair", ["a", "b"], "no_such_module has not been imported"),
        (f"{__name__}:Gone", ["a", "b"], "has no namedtuple 'Gone'"),
        (f"{__name__}:test.<locals>.Gone", ["a", "b"], "has no namedtuple"),
        (f"{__name__}:Pair", ["a", "c"], "its fields are a, b now, and were a, c"),
        ("os:system", ["a", "b"], "os has no namedtuple 'system'"),
        ("..:Pair", ["a"], ".. has not been imported"),
    ],
)
def test_a_class_that_is_not_to_be_had(name: str, fields: list[str], why: str) -> None:
    text = pytrees.written(pytree.tree_structure(Outer.One(0))).replace("only", '", "'.join(fields))
    text = text.replace(f"{__name__}:Outer.One", name)
    with pytest.raises(TrainingError, match="HB0926") as caught:
        pytrees.read(text)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("build", "why"),
    [
        (lambda a, b: (a, b * 2), "output 1 of type Tensor is computed behind the stubs"),
        (lambda a, b: (object(), b), "output 0 of type object is no tensor"),
        (lambda a, b: torch.return_types.max((a, b)), "PyTorch's pytrees do not write it down"),
    ],
)
def test_what_cannot_be_remembered_is_told_with_its_cause(build: Any, why: str) -> None:
    x = pair()
    module = hbdk4.export(validated(build, x), (x,))
    with pytest.raises(TrainingError, match="HB0923") as caught:
        hbdk4.get_hbir_output_unflattener(module)
    assert why in str(caught.value)


def test_an_input_that_is_changed_before_its_stub() -> None:
    class Scaled(Net):
        def forward(self, given: Any) -> Any:
            return super().forward((given[0] * 2, given[1]))

    x = pair()
    model = prepare(Scaled(Pair).eval(), (x,)).eval()
    set_fake_quantize(model, FakeQuantState.CALIBRATION)
    model(x)
    model.eval()
    set_fake_quantize(model, FakeQuantState.VALIDATION)
    with pytest.raises(TrainingError, match="HB0923") as caught:
        hbdk4.get_hbir_input_flattener(hbdk4.export(model, (x,)))
    assert "'quants.0' is given what the model computes" in str(caught.value)


class Kind(Enum):
    ONE = 1
    TWO = 2


def test_enumerations_and_defaults_of_modules_that_are_imported() -> None:
    tree = {Kind.TWO: [1, defaultdict(list, x=2)], "b": deque([3], maxlen=2)}
    spec = pytree.tree_structure(tree)
    found = pytrees.read(pytrees.written(spec, [1, 2, 3]))
    assert isinstance(found, pytrees.Form) and pytree.tree_unflatten([1, 2, 3], found.spec) == tree


class Local(Enum):
    A = 1


Local.__qualname__ = "test.<locals>.Local"


@pytest.mark.parametrize("tree", [defaultdict(lambda: 0, x=1), {Local.A: 1}], ids=["lambda", "local enumeration"])
def test_what_could_not_be_read_again_is_told_when_it_is_written(tree: Any) -> None:
    found = pytrees.read(pytrees.written(pytree.tree_structure(tree)))
    assert isinstance(found, str) and "could not be read again" in found


HOSTILE = {
    "no JSON": "{",
    "nothing": "",
    "a number": "5",
    "deep": "[" * 100_000,
    "deep tree": json.dumps({"tree": "[" * 100_000, "classes": {}, "constants": []}),
    "another protocol": "[9, {}]",
    "no node": '[1, {"type": 5}]',
    "a class nobody registered": '[1, {"type": "os.system", "context": null, "children_spec": []}]',
    "no tree": json.dumps({"tree": 5, "classes": {}, "constants": []}),
    "a class without a name": json.dumps({"tree": "[1, {}]", "classes": {"0": []}, "constants": []}),
    "a class without a number": json.dumps({"tree": "[1, {}]", "classes": {"x": ["a", "b"]}, "constants": []}),
    "a constant that is a list": json.dumps({"tree": "[1, {}]", "classes": {}, "constants": [[]]}),
    "names that are lists": pytrees.written(pytree.tree_structure({"a": 1})).replace('\\"a\\"', "[]"),
    "too few names": pytrees.written(pytree.tree_structure({"a": 1})).replace('\\"a\\"', ""),
    "too many fields": pytrees.written(pytree.tree_structure(Outer.One(0))).replace('"0"', '"1"'),
    "a default that is no class": pytrees.written(pytree.tree_structure(defaultdict(int, a=1))).replace("int", "print"),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_damaged_texts_are_told(text: str) -> None:
    found = pytrees.read(text)
    assert isinstance(found, str) and "damaged" in found


@pytest.mark.parametrize(
    "tree",
    [{Kind.ONE: 1}, [{"a": {Kind.TWO: 1}}], defaultdict(int, a=1)],
    ids=["enumeration", "nested", "default"],
)
def test_a_form_imports_nothing(tree: Any) -> None:
    text = pytrees.written(pytree.tree_structure(tree))
    text = text.replace(__name__, "antigravity").replace('"builtins"', '"antigravity"')
    assert "antigravity" in text
    with pytest.raises(TrainingError, match="HB0926.*antigravity has not been imported"):
        pytrees.read(text)
    assert "antigravity" not in sys.modules


def test_nor_does_one_with_a_mistake() -> None:
    """PyTorch's reader acts on each object of a context while it parses, in front of what it then refuses."""
    text = pytrees.written(pytree.tree_structure({Kind.ONE: 1, Kind.TWO: 2})).replace(__name__, "antigravity", 1)
    at = text.rindex("fqn")
    with pytest.raises(TrainingError, match="HB0926.*antigravity has not been imported"):
        pytrees.read(text[:at] + "]" + text[at:])
    with pytest.raises(TrainingError, match="HB0926.*antigravity has not been imported"):
        pytrees.read(text[: at - 2] + "NaN" + text[at:])
    text = pytrees.written(pytree.tree_structure(defaultdict(int, a=1))).replace('"builtins"', '"builtins:antigravity"')
    with pytest.raises(TrainingError, match="HB0926.*builtins:antigravity has not been imported"):
        pytrees.read(text)
    assert "antigravity" not in sys.modules


def test_a_module_whose_form_is_that_of_another_says_so() -> None:
    x = pair()
    module = hbdk4.export(validated(Pair, x), (x,))
    attributes = module[0].op.attributes
    given = {key: attributes[key] for key in ("hbir.inputs", "hbir.outputs", "hbir.input_leaves", "hbir.outputs_order")}
    longer = pytrees.written(pytree.tree_structure([1, 2, 3]))
    for key, value in {
        "hbir.inputs": StringAttr("{"),
        "hbir.outputs": StringAttr(longer),
        "hbir.input_leaves": DenseArrayBase.from_list(i64, [0, 7]),
        "hbir.outputs_order": DenseArrayBase.from_list(i64, [0, 2]),
    }.items():
        for changed in (value, StringAttr("5"), None):
            attributes.update(given)
            if changed is None:
                del attributes[key]
            else:
                attributes[key] = changed
            asked = hbdk4.get_hbir_input_flattener if "input" in key else hbdk4.get_hbir_output_unflattener
            with pytest.raises(TrainingError, match="HB0923"):
                asked(module)


leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3)
trees = st.recursive(
    leaves,
    lambda part: (
        st.lists(part, max_size=3)
        | st.lists(part, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=2), part, max_size=3)
        | st.builds(Pair, part, part)
        | st.builds(Outer.One, part)
        | st.builds(Empty)
    ),
    max_leaves=12,
)


@given(trees)
def test_forms_are_read_as_they_were_written(tree: Any) -> None:
    values, spec = pytree.tree_flatten(tree)
    found = pytrees.read(pytrees.written(spec, values))
    assert isinstance(found, pytrees.Form) and found.spec == spec and list(found.constants) == values


@given(trees, st.data())
def test_a_damaged_form_is_a_form_or_told(tree: Any, data: st.DataObject) -> None:
    text = pytrees.written(pytree.tree_structure(tree), pytree.tree_leaves(tree))
    at, length = data.draw(st.integers(0, len(text))), data.draw(st.integers(0, 4))
    text = (
        text[:at]
        + data.draw(st.sampled_from(["", "[", "]", '"', "0", "null", "{}", "tuple", ":", "-"]))
        + text[at + length :]
    )
    try:
        found = pytrees.read(text)
    except TrainingError as error:
        assert error.code == "HB0926"
    else:
        assert isinstance(found, str | pytrees.Form)
