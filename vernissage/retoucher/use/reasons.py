"""Why an edit was made, as far as measuring can tell: one statistic for each slider, before and after the step.

A reason is claimed only where the statistic lay outside its typical range on the side that the edit works against.
Everywhere else the sentence says what was measured and that the agent, which sees more than one number, decided.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Long edge in pixels at which everything here is measured; sharpness and noise mean something else at another size.
MEASURED_EDGE = 160


@dataclass(frozen=True)
class Gauge:
    """The statistic that speaks for or against turning one slider.

    Attributes:
        name: What is measured, in a photographer's words.
        definition: What exactly that is.
        measure: Statistics of a picture to the value.
        typical: The middle half of photographs: 25th and 75th percentile over the 300 photographs of BSDS500's train
            and validation parts, measured by `photo_statistics` at `MEASURED_EDGE`, rounded.
        below: What a picture is whose value is lower.
        above: What a picture is whose value is higher.
        raises: Whether turning the slider up raises the value (smoothing lowers the noise).
        digits: Decimals to show.
    """

    name: str
    definition: str
    measure: Callable[[Mapping[str, float]], float]
    typical: tuple[float, float]
    below: str
    above: str
    raises: bool = True
    digits: int = 2

    def text(self, value: float) -> str:
        """A value with the decimals that it deserves; never "-0.0"."""
        return f"{round(value, self.digits) + 0.0:.{self.digits}f}"


GAUGES: Mapping[str, Gauge] = {
    "exposure": Gauge("median luma", "50th percentile", lambda s: s["luma_p50"], (0.33, 0.50), "dark", "bright"),
    "contrast": Gauge(
        "tonal range",
        "5th to 95th percentile of luma",
        lambda s: s["luma_p95"] - s["luma_p05"],
        (0.47, 0.72),
        "flat",
        "harsh",
    ),
    "highlights": Gauge(
        "bright end", "95th percentile of luma", lambda s: s["luma_p95"], (0.64, 0.87), "dull", "glaring"
    ),
    "shadows": Gauge("dark end", "5th percentile of luma", lambda s: s["luma_p05"], (0.09, 0.22), "murky", "milky"),
    "temperature": Gauge(
        "blue-yellow cast",
        "mean b* of soft colours",
        lambda s: s["cast_b"],
        (2.3, 17.9),
        "bluish",
        "yellowish",
        digits=1,
    ),
    "tint": Gauge(
        "green-magenta cast",
        "mean a* of soft colours",
        lambda s: s["cast_a"],
        (-7.4, 0.3),
        "greenish",
        "pinkish",
        digits=1,
    ),
    "saturation": Gauge(
        "colourfulness", "mean chroma / 100", lambda s: s["saturation_mean"], (0.13, 0.23), "pale", "gaudy"
    ),
    "denoise": Gauge(
        "noise",
        "standard deviation of luma",
        lambda s: s["noise"],
        (0.014, 0.026),
        "clean",
        "grainy",
        raises=False,
        digits=3,
    ),
    "sharpen": Gauge(
        "fine detail", "spread of the Laplacian of luma", lambda s: s["sharpness"], (0.14, 0.22), "soft", "crisp"
    ),
}

_ELSE = "the agent judged by the whole picture"
_CLIPPED = {"clipped_high": "blown out", "clipped_low": "blocked up"}
# Which end an edit can push pixels over, by slider and direction; colour and detail push neither.
_ENDS = {
    ("exposure", True): ("clipped_high",), ("exposure", False): ("clipped_low",),
    ("contrast", True): ("clipped_high", "clipped_low"), ("contrast", False): ("clipped_high", "clipped_low"),
    ("highlights", True): ("clipped_high",), ("highlights", False): ("clipped_high",),
    ("shadows", True): ("clipped_low",), ("shadows", False): ("clipped_low",),
}  # fmt: skip


@dataclass(frozen=True)
class Reason:
    """What was measured around one step.

    Attributes:
        statistic: What was measured.
        before: Its value before the step.
        after: Its value after the step.
        typical: The middle half of photographs.
        supports: Whether `before` by itself calls for the edit.
        text: The reason as a sentence.
        effect: What the step made of it, as a sentence: the value after, and pixels that lost their texture.
    """

    statistic: str
    before: float
    after: float
    typical: tuple[float, float]
    supports: bool
    text: str
    effect: str


def reason_for(slider: str, change: float, before: Mapping[str, float], after: Mapping[str, float]) -> Reason:
    """Say what speaks for an edit.

    Args:
        slider: Name of the slider.
        change: By how much it moved.
        before: `photo_statistics` of the picture before the step, at `MEASURED_EDGE`.
        after: The same after the step.

    Raises:
        KeyError: There is no such slider.
    """
    gauge = GAUGES[slider]
    value, low, high = gauge.measure(before), *gauge.typical
    # Rounded as shown: a sentence must not call 0.33 lower than 0.33.
    shown = float(gauge.text(value))
    is_low, is_high = shown < low, shown > high
    rising = (change > 0) == gauge.raises
    supports = is_low if rising else is_high
    measured, usual = f"{gauge.name} {gauge.text(value)}", f"{gauge.text(low)} to {gauge.text(high)}"
    if supports:
        text = f"The picture was {gauge.below if is_low else gauge.above}: {measured}, typical {usual}."
    elif is_low or is_high:
        side = "below" if is_low else "above"
        text = f"{_sentence(measured)} was {side} the typical {usual} and did not ask for it; {_ELSE}."
    else:
        text = f"{_sentence(measured)} was typical ({usual}); {_ELSE}."
    reached = gauge.measure(after)
    clauses = [f"{gauge.name} {gauge.text(value)} -> {gauge.text(reached)}"]
    clauses += [_lost(end, before[end], after[end]) for end in _ENDS.get((slider, change > 0), ())]
    effect = f"{_sentence('; '.join(clauses))}."
    return Reason(f"{gauge.name} ({gauge.definition})", value, reached, gauge.typical, supports, text, effect)


def _lost(end: str, before: float, after: float) -> str:
    shares = _percent(before), _percent(after)
    if shares == ("0.0 %", "0.0 %"):
        return f"0 % of the pixels {_CLIPPED[end]}, as before"
    return f"pixels {_CLIPPED[end]} {shares[0]} -> {shares[1]}"


def _sentence(clause: str) -> str:
    return clause[0].upper() + clause[1:]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
