"""A few marks and axes as inline SVG text: enough for the report's pictures, the same bytes for the same numbers.

Colours are CSS classes ``c0`` to ``c7`` that set ``color``; marks draw in ``currentColor``, so that the page decides
how they look in light, dark and print. Every series has a shape and a dash of its own as well: colour is never alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

SERIES = 8
"""Distinct looks; a ninth series looks like the first."""
DASHES = ("", "", "6 3", "2 2", "8 3 2 3", "1 3", "10 4", "4 4")
_SHAPES = ("circle", "square", "triangle", "diamond", "nabla", "plus", "star", "bar")


def tag(name: str, content: str = "", /, **attributes: object) -> str:
    """One element; ``content`` is markup, attributes are escaped, numbers have one decimal, ``_`` stands for ``-``.

    An attribute that is None or empty is left out; ``class_`` is ``class``.
    """
    words = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_word(value))}"'
        for key, value in attributes.items()
        if value is not None and value != ""
    )
    return f"<{name}{words}>{content}</{name}>" if content else f"<{name}{words}/>"


def _word(value: object) -> str:
    return number(value) if isinstance(value, float) else str(value)


def number(value: float) -> str:
    """A coordinate: one decimal, no ``-0``, no ``.0``."""
    return f"{round(value, 1) + 0.0:.1f}".removesuffix(".0")


def text(x: float, y: float, words: str, **attributes: object) -> str:
    """Words at a place; escaped."""
    return tag("text", escape(words), x=float(x), y=float(y), **attributes)


def look(index: int) -> str:
    """The CSS class of a series."""
    return f"c{index % SERIES}"


def dash(index: int) -> str:
    """The dash pattern of a series; empty for a solid line."""
    return DASHES[index % SERIES]


def marker(index: int, x: float, y: float, size: float = 4.0, title: str = "") -> str:
    """The shape of a series with its middle at (x, y), ``size`` its half width; ``title`` is shown on hovering."""
    r = size
    paths = {
        "square": f"M{number(x - r)} {number(y - r)}h{number(2 * r)}v{number(2 * r)}h{number(-2 * r)}z",
        "triangle": _polygon((x, y - 1.2 * r), (x + 1.2 * r, y + r), (x - 1.2 * r, y + r)),
        "diamond": _polygon((x, y - 1.4 * r), (x + 1.4 * r, y), (x, y + 1.4 * r), (x - 1.4 * r, y)),
        "nabla": _polygon((x, y + 1.2 * r), (x + 1.2 * r, y - r), (x - 1.2 * r, y - r)),
        "plus": _cross(x, y, r),
        "star": _polygon(*_star(x, y, 1.5 * r)),
        "bar": f"M{number(x - 1.4 * r)} {number(y - r / 2)}h{number(2.8 * r)}v{number(r)}h{number(-2.8 * r)}z",
    }
    shape = _SHAPES[index % SERIES]
    inner = tag("title", escape(title)) if title else ""
    if shape == "circle":
        return tag("circle", inner, cx=float(x), cy=float(y), r=float(r), fill="currentColor", class_=look(index))
    return tag("path", inner, d=paths[shape], fill="currentColor", class_=look(index))


def _polygon(*points: tuple[float, float]) -> str:
    return "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points) + "z"


def _cross(x: float, y: float, r: float) -> str:
    t = r / 2.5
    corners = [(-t, -r), (t, -r), (t, -t)]
    # Each further arm is the one before, turned by a quarter.
    for place in range(9):
        dx, dy = corners[place]
        corners.append((-dy, dx))
    return _polygon(*((x + 1.2 * dx, y + 1.2 * dy) for dx, dy in corners))


def _star(x: float, y: float, r: float) -> list[tuple[float, float]]:
    def tip(k: int) -> tuple[float, float]:
        radius, turn = r if k % 2 == 0 else r * 0.45, math.pi * (k / 5 - 0.5)
        return x + radius * math.cos(turn), y + radius * math.sin(turn)

    return [tip(k) for k in range(10)]


def line(points: Iterable[tuple[float, float]], **attributes: object) -> str:
    """A polyline; points whose coordinates are not finite break it."""
    path, pen = [], "M"
    for x, y in points:
        if not (math.isfinite(x) and math.isfinite(y)):
            pen = "M"
            continue
        path.append(f"{pen}{number(x)} {number(y)}")
        pen = "L"
    return tag("path", d="".join(path), fill="none", stroke="currentColor", **attributes) if path else ""


@dataclass(frozen=True)
class Axis:
    """From a figure's unit to the picture's.

    Attributes:
        low, high: ends of the range shown, ``low < high``; positive where ``log``.
        start, end: where they lie in the picture.
        log: logarithmic.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    @staticmethod
    def around(
        values: Iterable[float], start: float, end: float, *, log: bool = False, zero: bool = False, room: float = 0.05
    ) -> Axis:
        """The axis that shows all finite values with some room at both ends.

        Args:
            values: what has to be visible; those not finite (or not positive, where ``log``) are passed over.
            start, end: in the picture.
            log: logarithmic.
            zero: begins at zero.
            room: share of the range that is left free at each end.
        """
        kept = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
        low, high = (min(kept), max(kept)) if kept else (1.0, 10.0)
        if log:
            wide = max((high / low) ** room, 1.15)
            return Axis(low / wide, high * wide, start, end, True)
        low = min(low, 0.0) if zero else low
        wide = (high - low) * room or abs(high) * 0.1 or 1.0
        return Axis(low if zero and low == 0 else low - wide, high + wide, start, end)

    def __call__(self, value: float) -> float:
        """Where a value lies; beyond the ends it lies on them, what is not finite nowhere (NaN)."""
        if not math.isfinite(value) or (self.log and value <= 0):
            return math.nan
        low, high, at = (self.low, self.high, value)
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(value)
        share = min(max((at - low) / (high - low), 0.0), 1.0)
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int = 5) -> tuple[float, ...]:
        """Round values within the range, ``most`` or fewer; where a logarithmic axis is short, as on a linear one."""
        if self.log and self.high > 5 * self.low:
            return self._log_ticks(most)
        step = _step((self.high - self.low) / most)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return tuple(k * step for k in range(first, last + 1))

    def _log_ticks(self, most: int) -> tuple[float, ...]:
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for digits in ((1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
            found = [digit * 10.0**power for power in powers for digit in digits]
            found = [value for value in found if self.low <= value <= self.high]
            if len(found) <= most:
                break
        return tuple(found[:: math.ceil(len(found) / most) or 1]) if found else (self.low, self.high)


def _step(least: float) -> float:
    """The smallest of 1, 2, 2.5, 5 times a power of ten that is not below ``least``."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(digit * power for digit in (1, 2, 2.5, 5, 10) if digit * power >= least * (1 - 1e-9))


def plain(value: float) -> str:
    """A tick's label: as few digits as tell it."""
    value = float(f"{value:.6g}") + 0.0
    if value != 0 and (abs(value) >= 1e6 or abs(value) < 1e-4):
        return f"{value:.3g}"
    return f"{value:,.10g}"


@dataclass(frozen=True)
class Frame:
    """A plotting area with its two axes.

    Attributes:
        width, height: of the picture.
        x, y: the axes; ``y.start`` is the bottom.
    """

    width: float
    height: float
    x: Axis
    y: Axis

    def grid(
        self,
        x_label: str,
        y_label: str,
        x_ticks: Sequence[tuple[float, str]] | None = None,
        y_ticks: Sequence[tuple[float, str]] | None = None,
    ) -> str:
        """Grid lines, labels of ticks and names of axes; ticks are (value, label), by default the axes' own."""
        x_ticks = [(v, plain(v)) for v in self.x.ticks()] if x_ticks is None else x_ticks
        y_ticks = [(v, plain(v)) for v in self.y.ticks()] if y_ticks is None else y_ticks
        left, right, bottom, top = self.x.start, self.x.end, self.y.start, self.y.end
        parts = []
        for value, label in y_ticks:
            at = self.y(value)
            parts.append(tag("path", d=f"M{number(left)} {number(at)}H{number(right)}", class_="grid"))
            parts.append(text(left - 5, at + 3.5, label, text_anchor="end"))
        for value, label in x_ticks:
            at = self.x(value)
            parts.append(tag("path", d=f"M{number(at)} {number(top)}V{number(bottom)}", class_="grid"))
            parts.append(text(at, bottom + 14, label, text_anchor="middle"))
        parts.append(
            tag("path", d=f"M{number(left)} {number(top)}V{number(bottom)}H{number(right)}", class_="axis", fill="none")
        )
        parts.append(text((left + right) / 2, self.height - 3, x_label, text_anchor="middle", class_="label"))
        parts.append(text(2, 11, y_label, class_="label"))
        return "".join(parts)


def picture(width: float, height: float, title: str, content: str) -> str:
    """A whole inline picture that scales with its box; ``title`` is what a screen reader says."""
    return tag(
        "svg",
        tag("title", escape(title)) + content,
        viewBox=f"0 0 {number(width)} {number(height)}",
        role="img",
        xmlns="http://www.w3.org/2000/svg",
    )
