"""Rules on prepared models: dtypes by name, by operation and by sensitivity, who wins, and what `explain` says of it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import nn

import hbir.torch as ht
from hbir.errors import TrainingError
from hbir.torch.dtype import QuantDType, qint8, qint16
from hbir.torch.fake_quant.fake_quantize import FakeQuantize
from hbir.torch.fake_quant.histograms import PercentileObserver
from hbir.torch.fake_quant.notices import TrainingWarning
from hbir.torch.fake_quant.observers import (
    FixedScaleObserver,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    PerChannelMinMaxObserver,
)
from hbir.torch.preparing.trace import trace
from hbir.torch.qconfig import presets
from hbir.torch.qconfig.attributes import QconfigAttributes
from hbir.torch.qconfig.choices import Choice, QconfigRule, explain
from hbir.torch.qconfig.defaults import rules_for
from hbir.torch.qconfig.qconfig import (
    QConfig,
    default_qat_16bit_fake_quant_qconfig,
    get_default_qat_out_qconfig,
    get_default_qat_qconfig,
    get_qconfig,
)
from hbir.torch.qconfig.setters import ModuleNameQconfigSetter, QconfigSetter
from hbir.torch.qconfig.templates import (
    ConvDtypeTemplate,
    MatmulDtypeTemplate,
    ModuleNameTemplate,
    SensitivityTemplate,
)
from hbir.torch.stubs import DeQuantStub, QuantStub
from hbir.torch.tracing.places import Key, Place, places_of
from hbir.torch.tracing.scopes import install

SIXTEEN, WIDE = get_qconfig(out_dtype=qint16), get_qconfig(weight_dtype=qint16)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.act = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.bn(self.conv(x)))


class Net(nn.Module):
    """quant -> stem -> block -> + -> head, and a matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.stem, self.block, self.norm = nn.Conv2d(3, 4, 1), Block(), nn.LayerNorm(5)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.sigmoid(self.stem(self.quant(x)))
        z = self.norm(self.block(y) + y)
        return self.dequant(self.head(z)), self.dequant(torch.matmul(z, torch.sigmoid(z)))


@pytest.fixture(autouse=True)
def march() -> Iterator[None]:
    ht.set_march("nash-e")
    with warnings.catch_warnings():
        warnings.simplefilter("error", TrainingWarning)
        yield


def choices(*rules: QconfigRule, model: nn.Module | None = None) -> dict[str, Choice]:
    """The choices by the places' names."""
    model = (model or Net()).eval()
    install(model)
    places, _ = places_of(trace(model, (torch.randn(1, 3, 5, 5),)).calls)
    chosen: dict[Key, Choice] = {}
    for rule in rules:
        chosen.update(rule.choose(places, chosen))
    names = {place.key: place.name for place in places}
    return {names[key]: choice for key, choice in chosen.items()}


def dtype(fake: FakeQuantize | None) -> QuantDType | None:
    return None if fake is None else fake.dtype


def outputs(found: Mapping[str, Choice]) -> dict[str, QuantDType | None]:
    return {name: dtype(each.activation) for name, each in found.items()}


def test_the_default_is_eight_bits_with_accumulators_and_wide_statistics() -> None:
    found = choices(*rules_for(Net(), []))
    inner = {name for name in found if name.startswith("norm")}
    assert len(inner) > 6
    features = [name for name, value in outputs(found).items() if name in inner and value == qint8]
    assert features == [list(inner and [name for name in found if name in inner])[-1]]
    assert all(value in (qint8, qint16) for name, value in outputs(found).items() if name in inner)
    rest = {name: value for name, value in outputs(found).items() if name not in inner}
    fused = {"stem": qint8, "block.conv": None, "block.bn": None, "block.act": qint8, "head": None}
    assert {name: rest[name] for name in fused} == fused
    assert all(value == qint8 for name, value in rest.items() if name not in fused)
    for layer in ("stem", "block.conv", "head"):
        weight = found[layer].weight
        assert weight is not None and weight.scale.shape == ({"head": 2}.get(layer, 4),)
        assert isinstance(weight.activation_post_process, MinMaxObserver)
    plain = choices(QconfigSetter(statistics=False))
    assert qint16 not in outputs(plain).values()


@pytest.mark.parametrize("name", presets.__all__)
def test_published_setters(name: str) -> None:
    rule: Any = getattr(presets, name)
    rule = rule([("stem", "activation")], topk=1) if name.startswith("sensitive") else rule
    found = choices(rule)
    wide = "16bit" in name and not name.startswith("sensitive")
    act = found["stem"].activation
    assert act is not None and act.dtype == (qint16 if "16bit" in name else qint8)
    assert act.frozen == ("fixed_act" in name) and act.learned == ("learned" in name)
    kind = PercentileObserver if "calibration" in name else MovingAverageMinMaxObserver
    assert type(act.activation_post_process) is kind
    assert found["stem"].weight is not None and found["stem"].weight.dtype == qint8
    if name.startswith("sensitive"):
        assert list(found) == ["stem"]
        rest = choices(rule, presets.default_qat_qconfig_setter)
        assert dtype(rest["block.act"].activation) == qint8 and dtype(rest["stem"].activation) == qint16
    else:
        assert dtype(found["block.act"].activation) == (qint16 if wide else qint8)
        # The accumulators of sixteen bits fit no output of the engine.
        assert dtype(found["head"].activation) == (qint16 if wide else None)


def template(names: Mapping[str, Any], *more: Any, freeze: bool = False) -> dict[str, Choice]:
    return choices(QconfigSetter(get_qconfig(), [ModuleNameTemplate(names, freeze), *more]))


def test_the_longest_name_wins_and_a_layer_speaks_for_what_it_is_fused_with() -> None:
    found = template({"": qint16, "block": qint8, "stem": {"output": qint8, "weight": qint16}})
    assert outputs(found)["block.act"] == qint8 and outputs(found)["stem"] == qint8
    assert dtype(found["stem"].weight) == qint16 and dtype(found["head"].weight) == qint8
    assert outputs(found)["quant"] == qint16 and outputs(found)["head"] == qint16
    assert outputs(template({"block.conv": qint16}))["block.act"] == qint16
    both = template({"block.conv": qint16, "block.act": qint8})
    assert outputs(both)["block.act"] in (qint8, qint16)
    # Said of the head itself, it is done; said of all, accumulators stay.
    assert outputs(template({"head": qint16}))["head"] == qint16
    assert outputs(template({"": {"output": qint8}}))["head"] is None


def test_thresholds_fix_scales() -> None:
    found = template(
        {"stem": {"dtype": qint16, "threshold": {"input": 0.5, "output": 4.0}}, "block.act": {"threshold": 2}}
    )
    stem = found["stem"]
    assert stem.activation is not None and stem.activation.fixed and stem.activation.scale.tolist() == [4 / 32768]
    assert stem.inputs[0].scale.tolist() == [0.5 / 128] and stem.inputs[0].dtype == qint8
    act = found["block.act"].activation
    assert act is not None and act.scale.tolist() == [2 / 128]


def test_an_edge_has_the_dtype_that_its_reader_asks_for() -> None:
    # The block's sum reads the sigmoid also, and takes what comes: the value stays wide, the convolution gets a grid.
    found = choices(QconfigSetter(SIXTEEN, [ConvDtypeTemplate(qint8, qint8)]))
    first = next(name for name in found if "sigmoid" in name)
    assert dtype(found[first].activation) == qint16 and dtype(found["block.conv"].inputs[0]) == qint8
    # The stub's value is read by the stem alone, which asks for eight bits.
    assert dtype(found["quant"].activation) == qint8 and not found["stem"].inputs
    raised = template({"stem": {"input": qint16}})
    assert outputs(raised)["quant"] == qint16 and outputs(raised)["stem"] == qint8
    products = choices(QconfigSetter(SIXTEEN, [MatmulDtypeTemplate([qint8, qint16])]))
    matmul = next(each for name, each in products.items() if "matmul" in name)
    assert {number: dtype(fake) for number, fake in matmul.inputs.items()} == {0: qint8}
    with pytest.raises(TrainingError, match="HB0943"):
        choices(QconfigSetter(SIXTEEN, [MatmulDtypeTemplate([qint8])]))


def test_in_dtype_of_a_qconfig() -> None:
    found = choices(QconfigSetter(get_qconfig(in_dtype=qint8, out_dtype=qint16), statistics=False))
    # All readers ask for eight bits, so that nothing is made wider.
    assert set(outputs(found).values()) - {qint8, None, qint16} == set() and outputs(found)["quant"] == qint8


def test_freeze_and_the_order_of_templates() -> None:
    sensitive = SensitivityTemplate([("stem", "weight", "conv", 0.1), ["stem", "activation"]], 2)
    found = template({"stem": qint8}, sensitive)
    assert dtype(found["stem"].weight) == qint16 and outputs(found)["stem"] == qint16
    frozen = template({"stem": qint8}, sensitive, freeze=True)
    assert dtype(frozen["stem"].weight) == qint8 and outputs(frozen)["stem"] == qint8


@pytest.mark.parametrize(
    ("table", "count", "wide"),
    [
        (["stem", "block.act"], 1, {"stem"}),
        ({"stem": 0.1, "block.act": 0.9}, 1, {"block.act"}),
        ([["block.conv", "activation", 1.0], ["stem", "weight", 0.5], ["stem", "activation", 0.2]], 0.5, {"block.act"}),
        ([["stem", "activation"]], 0, set[str]()),
        ([["stem", "activation"]], 1.0, {"stem"}),
    ],
)
def test_sensitivity(table: Any, count: float, wide: set[str]) -> None:
    found = choices(QconfigSetter(get_qconfig(), [SensitivityTemplate(table, count, "activation")], statistics=False))
    assert {name for name, value in outputs(found).items() if value == qint16} == wide
    low = SensitivityTemplate(table, count, "activation", low_precision_dtype=qint8)
    other = choices(QconfigSetter(SIXTEEN, [low], statistics=False))
    named = {"stem", "block.act"} & {*wide, *(row if isinstance(row, str) else row[0] for row in table)}
    assert {name for name in named if outputs(other)[name] == qint16} == wide & named


def test_what_is_no_table_is_refused() -> None:
    for arguments in ((3, 1), ("stem", 1), ([[1.0]], 1), ([["stem"]], -1), ([["stem"]], 1.5), ([["stem"]], True)):
        with pytest.raises(TrainingError, match="HB0944"):
            choices(QconfigSetter(get_qconfig(), [SensitivityTemplate(*arguments)]))
    with pytest.raises(TrainingError, match="HB0944"):
        SensitivityTemplate([["stem"]], 1, "all")
    for given in ({}, {"topk": 1, "ratio": 0.5}):
        with pytest.raises(TrainingError, match="HB0944"):
            presets.sensitive_op_qat_8bit_weight_16bit_act_qconfig_setter([["stem"]], **given)


@pytest.mark.parametrize("value", [torch.float16, {"dtyp": qint8}, {"threshold": -1}, {"threshold": {"output": "1"}}])
def test_templates_are_checked(value: Any) -> None:
    with pytest.raises(TrainingError, match="HB0943"):
        template({"stem": value})
    with pytest.raises(TrainingError, match="HB0901"):
        template({"stem": "int4"})


def test_names_without_a_place_are_warned_of() -> None:
    with pytest.warns(TrainingWarning, match=r"'stam'.*stem"):
        template({"stam": qint8})
    with pytest.warns(TrainingWarning, match="HB0942"):
        choices(ModuleNameQconfigSetter({"nothing": get_qconfig()}))


def test_the_first_rule_of_a_tuple_has_the_last_word() -> None:
    fixed = QConfig(output=FakeQuantize.with_args(observer=FixedScaleObserver, dtype=qint16, scale=60 / 32767))
    rules = (ModuleNameQconfigSetter({"stem": fixed}), presets.default_calibration_qconfig_setter)
    found = choices(*rules)
    stem = found["stem"]
    assert stem.activation is not None and stem.activation.fixed and stem.activation.dtype == qint16
    assert stem.weight is not None and stem.weight.dtype == qint8
    assert outputs(found)["block.act"] == qint8
    turned = choices(*reversed(rules))
    assert outputs(turned)["stem"] == qint8


def test_the_published_dictionary() -> None:
    given = {"": get_qconfig(), "module_name": [("block", default_qat_16bit_fake_quant_qconfig()), ("head", None)]}
    for names in (given, {**given, "module_name": dict(given["module_name"])}):
        found = choices(ModuleNameQconfigSetter(names))
        assert outputs(found)["block.act"] == qint16 and outputs(found)["stem"] == qint8
        assert not found["head"].quantized and found["head"].weight is None


def test_attributes_hold_below_their_module_and_stand_before_rules() -> None:
    model = Net()
    model.qconfig = get_default_qat_qconfig()
    model.block.qconfig = default_qat_16bit_fake_quant_qconfig()
    model.block.act.qconfig = get_default_qat_qconfig(activation_fake_quant="lsq")
    model.head.qconfig = get_default_qat_out_qconfig()
    model.stem.qconfig = None
    rules = rules_for(model, [presets.calibration_8bit_weight_16bit_act_qconfig_setter])
    found = choices(*rules, model=model)
    act = found["block.act"].activation
    assert act is not None and act.learned and act.dtype == qint8
    assert found["head"].activation is None and found["head"].weight is not None
    assert not found["stem"].quantized and found["stem"].weight is None
    assert outputs(found)["quant"] == qint8
    assert len(rules_for(Net(), [])) == 1 and not QconfigAttributes(Net())
    model.stem.qconfig = "int8"
    with pytest.raises(TrainingError, match="HB0941.*stem"):
        QconfigAttributes(model)


def test_an_output_qconfig_where_no_accumulator_can_leave() -> None:
    model = Net()
    model.stem.qconfig = get_default_qat_out_qconfig()
    found = choices(*rules_for(model, []), model=model)
    assert outputs(found)["stem"] == qint8
    assert any("no accumulator" in reason for reason in found["stem"].reasons)


def test_an_output_that_is_quantised_on_purpose() -> None:
    model = Net()
    model.head.qconfig = get_default_qat_qconfig()
    assert outputs(choices(*rules_for(model, []), model=model))["head"] == qint8


def test_normalisations_written_by_hand_are_wide_too() -> None:
    class Hand(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quant, self.dequant = QuantStub(), DeQuantStub()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.quant(x)
            x = x + torch.sigmoid(x)
            centred = x - x.mean(-1, keepdim=True)
            variance = (centred * centred).mean(-1, keepdim=True)
            return self.dequant(centred * torch.rsqrt(variance + 1e-5))

    found = outputs(choices(*rules_for(Hand(), []), model=Hand()))
    assert list(found.values()) == [qint8, qint8, qint8, *[qint16] * 6, qint8]


def test_explain_says_which_rule_set_what() -> None:
    model = Net().eval()
    install(model)
    places, _ = places_of(trace(model, (torch.randn(1, 3, 5, 5),)).calls)
    rule = QconfigSetter(get_qconfig(), [ModuleNameTemplate({"block.conv": {"output": qint16, "weight": qint8}})])
    found = dict(rule.choose(places, {}))
    text = explain(found, "block")
    assert text.splitlines() == [
        "block.conv, call 0: weight qint8 by MinMaxObserver, output not rounded",
        "    QconfigSetter: reference",
        "    ModuleNameTemplate 'block.conv': weight qint8",
        "    fused with what follows: 'block.act' holds the output",
        "block.bn, call 0: output not rounded",
        "    QconfigSetter: reference",
        "    fused with what follows: 'block.act' holds the output",
        "block.act, call 0: output qint16 by MSEObserver",
        "    QconfigSetter: reference",
        "    ModuleNameTemplate 'block.conv': output qint16",
    ]
    assert len(explain(found, "").splitlines()) > 30
    with pytest.raises(TrainingError, match="HB0942"):
        explain(found, "blok")


def test_rules_do_not_touch_what_is_chosen() -> None:
    place = Place(("a", 0), "a", "add", nn.Identity(), "x.py:1")
    mine = Choice(reasons=("mine",))
    for rule in rules_for(nn.Identity(), [QconfigSetter(), ModuleNameQconfigSetter({"a": get_qconfig()})]):
        assert not rule.choose([place], {place.key: mine})


def test_a_threshold_keeps_its_range_in_sixteen_bits() -> None:
    for dtypes in ({"weight": qint16}, {"weight": qint16, "input": qint8}):
        found = template({"block.conv": {"dtype": dtypes, "threshold": {"input": 1.5}}})
        fake = found["block.conv"].inputs[0]
        assert fake.dtype == qint16 and fake.scale.tolist() == [1.5 / 32768]


def test_the_fixed_scale_of_an_output_is_not_that_of_the_input() -> None:
    fixed = QConfig(
        output=FakeQuantize.with_args(observer=FixedScaleObserver, dtype=qint8, scale=2.0), weight=WIDE.weight
    )
    found = choices(ModuleNameQconfigSetter({"stem": fixed}), QconfigSetter())
    stem = found["stem"]
    assert stem.activation is not None and stem.activation.fixed
    assert not stem.inputs[0].fixed and stem.inputs[0].dtype == qint16


def test_wide_weights_on_a_march_that_has_none() -> None:
    ht.set_march("bayes")
    with pytest.raises(TrainingError, match=r"HB0943 at layer 'stem'.*qint16.*bayes"):
        choices(QconfigSetter(WIDE))
    assert choices(QconfigSetter(get_qconfig(out_dtype=qint16)))


@pytest.mark.parametrize("given", [{"c": qint16}, "stem", [qint16], [ModuleNameTemplate], None])
def test_what_is_no_template_is_refused(given: Any) -> None:
    with pytest.raises(TrainingError, match="HB0943.*template of QconfigSetter"):
        QconfigSetter(get_qconfig(), given)
    assert QconfigSetter(get_qconfig(), ConvDtypeTemplate()).templates == (ConvDtypeTemplate(),)


def test_activations_have_one_scale() -> None:
    per_channel = FakeQuantize.with_args(observer=MinMaxObserver, dtype=qint8, qscheme=torch.per_channel_symmetric)
    for qconfig in (get_qconfig(PerChannelMinMaxObserver), QConfig(per_channel), QConfig(PerChannelMinMaxObserver)):
        with pytest.raises(TrainingError, match=r"HB0941 at layer '.+MinMaxObserver"):
            choices(QconfigSetter(qconfig))
