"""What rules wish for each place, and the fake quants that come of it.

A dtype belongs to the edge between two operations. A value is made in one dtype; a reader that wishes for less gets a grid of
its own at its input, and one that wishes for more raises the maker's. Where all readers wish, the maker obeys them.
Groups of fused operations have one output: what is said of the output of a layer is done behind its activation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hbir.errors import TrainingError
from hbir.march import load_march
from hbir.torch.dtype import QuantDType, qint8, qint16
from hbir.torch.fake_quant.fake_quantize import FakeQuantize
from hbir.torch.fake_quant.notices import TrainingWarning
from hbir.torch.march import get_march
from hbir.torch.qconfig.choices import Choice
from hbir.torch.qconfig.qconfig import QConfig, activation_factory, dtype_of, made_by, weight_factory
from hbir.torch.tracing.calls import Key
from hbir.torch.tracing.places import Place

__all__ = ["Plan", "Wish"]


@dataclass
class Wish:
    """What a rule wishes for one place."""

    qconfig: QConfig | None
    """Its factories; None for a place that is not quantised."""
    output: QuantDType | None = None
    """None: the accumulator."""
    weight: QuantDType = qint8
    inputs: dict[int, QuantDType] = field(default_factory=dict[int, QuantDType])
    scale: float | None = None
    """A given scale of the output."""
    input_scales: dict[int, float] = field(default_factory=dict[int, float])
    named: bool = False
    """The output's dtype was said of this very place: readers do not change it, nor is it left out where it leaves."""
    frozen: bool = False
    """Later templates have no say."""
    reasons: list[str] = field(default_factory=list[str])


class Plan:
    """The places of a model, how they are linked, and the wishes for those that no rule before has chosen."""

    def __init__(self, places: Sequence[Place], chosen: Mapping[Key, Choice]) -> None:
        self.places, self.chosen = {place.key: place for place in places}, chosen
        self.readers: dict[Key, list[tuple[Place, int]]] = {}
        for place in places:
            for number, key in enumerate(place.operands):
                if key is not None:
                    self.readers.setdefault(key, []).append((place, number))
        self.groups: dict[Key, list[Place]] = {}
        """The places of each group by its end, in order; most have one."""
        for place in places:
            self.groups.setdefault(self.end(place), []).append(place)
        self.wishes: dict[Key, Wish] = {}
        self.outputs: dict[Key, QuantDType | None] = {}
        """What was decided of them so far."""
        self.statistics: set[Key] = set()
        """Places that get sixteen bits unless eight are asked of them by their own name."""

    def keeps_wide(self, place: Place, name: str) -> bool:
        """Whether eight bits, asked of everything that `name` means, leave a place at sixteen."""
        path, number = place.key
        own = name == place.name and (name != path or (path, number + 1) not in self.places)
        return place.key in self.statistics and not own

    def end(self, place: Place) -> Key:
        """The place whose grid holds what a place gives: the end of the group that it is fused in."""
        seen = {place.key}
        while place.inner:
            reader = next((reader for reader, _ in self.readers.get(place.key, ()) if reader.key not in seen), None)
            if reader is None:
                break
            place = reader
            seen.add(place.key)
        return place.key

    def wish(self, place: Place, qconfig: QConfig | None, reason: str) -> Wish | None:
        """Begin with the dtypes of a QConfig; None where a rule before has chosen."""
        if place.key in self.chosen:
            return None
        made = Wish(qconfig, reasons=[reason])
        if qconfig is not None:
            made.output = dtype_of(qconfig.activation)
            made.weight = dtype_of(qconfig.weight) or qint8
            inputs = dtype_of(qconfig.input)
            made.inputs = {} if inputs is None else dict.fromkeys(range(len(place.operands)), inputs)
        self.wishes[place.key] = made
        return made

    def choices(self) -> dict[Key, Choice]:
        """A choice for each wish."""
        outputs = {key: self._output(key) for key in self.wishes}
        return {key: self._choice(key, wish, outputs) for key, wish in self.wishes.items()}

    def _output(self, key: Key) -> QuantDType | None:
        """The dtype in which a value is made; None where it is not rounded."""
        if key not in self.outputs:
            self.outputs[key] = self._decided(key)
        return self.outputs[key]

    def _decided(self, key: Key) -> QuantDType | None:
        place, wish = self.places[key], self.wishes[key]
        if place.inner or wish.qconfig is None:
            return None
        if place.leaves and (not wish.named or wish.output is None) and wish.scale is None:
            if not self._is_wide(self.groups[key][0]):
                wish.reasons.append("the value only leaves: the layer hands out its accumulator")
                return None
            wish.reasons.append("the value only leaves, and its accumulator is wider than int32: qint16 at least")
            return qint16
        output = wish.output
        if output is None:
            output = qint8
            wish.reasons.append("there is no accumulator to hand out: others read the value, or it is no layer's")
        if wish.named or place.scale is not None:
            return output
        wanted = [self.wishes[reader.key].inputs.get(number) for reader, number in self.readers.get(key, ())
                  if reader.key in self.wishes]  # fmt: skip
        known = [dtype for dtype in wanted if dtype is not None]
        if not known:
            return output
        # With readers that take what comes, the value keeps its own dtype, or more.
        floor = [] if len(known) == len(self.readers[key]) else [output]
        final = max([*known, *floor], key=lambda dtype: dtype.bits)
        if final != output:
            wish.reasons.append(f"what reads it asks for {final}")
        return final

    def _is_wide(self, layer: Place) -> bool:
        """Whether no output of the tensor engine holds a layer's accumulator: operands of sixteen bits, and no floats."""
        if load_march(get_march()).has_float_results:
            return False
        key, wish = layer.operands[0] if layer.operands else None, self.wishes[layer.key]
        made = None if key is None else self._output(key) if key in self.wishes else _made(self.chosen.get(key))
        read = wish.inputs.get(0) or made
        bits = min(dtype.bits for dtype in (read, made) if dtype is not None) if read is not None else qint8.bits
        return bits > qint8.bits or wish.weight.bits > qint8.bits

    def _choice(self, key: Key, wish: Wish, outputs: Mapping[Key, QuantDType | None]) -> Choice:
        place, qconfig = self.places[key], wish.qconfig
        if qconfig is None:
            return Choice(reasons=tuple(wish.reasons), quantized=False)
        weight = None
        if place.is_layer:
            factory = qconfig.weight or weight_factory(wish.weight)
            weight = made_by(factory, dtype=wish.weight, axis=place.axis, channels=place.channels)
            _check_weight(weight, place)
        activation, output = None, outputs[key]
        if place.scale is not None:
            activation = FakeQuantize(None, output or qint8, scale=place.scale)
            wish.reasons.append("the stub was given its scale")
        elif output is not None and wish.scale is not None:
            activation = FakeQuantize(None, output, scale=wish.scale)
        elif output is not None:
            activation = _held(qconfig.activation or activation_factory(output), output, place)
        if place.inner:
            wish.reasons.append(f"fused with what follows: '{self.places[self.end(place)].name}' holds the output")
        inputs = self._inputs(place, wish, qconfig, outputs)
        return Choice(activation, weight, inputs, tuple(wish.reasons))

    def _inputs(
        self, place: Place, wish: Wish, qconfig: QConfig, outputs: Mapping[Key, QuantDType | None]
    ) -> dict[int, FakeQuantize]:
        found: dict[int, FakeQuantize] = {}
        for number, key in enumerate(place.operands):
            if key is None or self.places[key].inner:
                continue
            made = outputs[key] if key in outputs else _made(self.chosen.get(key))
            wanted, scale = wish.inputs.get(number), wish.input_scales.get(number)
            said = wanted or qint8
            if place.is_layer and number == 0 and wish.weight.bits > qint8.bits:
                decided = key in outputs or key in self.chosen
                wanted = _beside_wide_weights(wish, made) if decided else wish.weight
                changes = wanted is not None
                if changes:
                    wish.reasons.append(f"weights in {wish.weight} read nothing less")
            else:
                changes = wanted is not None and made is not None and wanted.bits < made.bits
            if scale is not None:
                dtype = wanted or made or qint8
                found[number] = FakeQuantize(None, dtype, scale=scale * 2.0 ** (said.bits - dtype.bits))
            elif changes and wanted is not None:
                found[number] = _held(qconfig.input or qconfig.activation or activation_factory(wanted), wanted, place)
                if qconfig.input is None and found[number].fixed:  # that scale is the output's
                    found[number] = _held(activation_factory(wanted), wanted, place)
                wish.reasons.append(f"input {number} is made in {made or 'another rule'} and read in {wanted}")
        return found


def _beside_wide_weights(wish: Wish, made: QuantDType | None) -> QuantDType | None:
    """What an operand is held in beside weights of sixteen bits, which are multiplied with nothing less; None where it is that
    already, or no integer."""
    return None if made in (None, wish.weight) else wish.weight


def _held(factory: Any, dtype: QuantDType, place: Place) -> FakeQuantize:
    """A new fake quant of activations. Raises TrainingError HB0941 for one with a scale for each channel."""
    made = made_by(factory, dtype=dtype)
    observer = made.activation_post_process
    if made.channel_axis is None and getattr(observer, "axis", None) is None:
        return made
    raise TrainingError(
        41,
        f"activations are held for each channel, by {type(observer).__name__}",
        where=f"layer '{place.name}'",
        why="an activation has one scale; weights alone have one for each channel",
        lever="use MinMaxObserver, MSEObserver or PercentileObserver for activations, with per_tensor_symmetric",
    )


def _check_weight(weight: FakeQuantize, place: Place) -> None:
    """Raise HB0943 for weights that the march multiplies with nothing."""
    march = load_march(get_march())
    if f"int{weight.dtype.bits}" not in march.conv_weight_types:
        raise TrainingError(
            43,
            f"weights are {weight.dtype}",
            where=f"layer '{place.name}'",
            why=f"march {get_march()} multiplies weights of {', '.join(march.conv_weight_types)} alone",
            lever="use qint8 for weights, or choose another march with set_march",
        )


def _made(choice: Choice | None) -> QuantDType | None:
    return None if choice is None or choice.activation is None else choice.activation.dtype


def warn(what: str, why: str, lever: str) -> None:
    """Warn of settings that have no effect (HB0942)."""
    import warnings

    warnings.warn(TrainingWarning(TrainingError(42, what, why=why, lever=lever)), stacklevel=3)
