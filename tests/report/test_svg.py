"""The small drawing helpers: scales, ticks, escaping, and the Pareto front."""

from __future__ import annotations

import math
import re
from itertools import combinations
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant.report import svg
from quant.report.figures import LETTER, front_of, pareto
from quant.report.svg import Axis

values = st.floats(-1e9, 1e9, allow_subnormal=False)
positive = st.floats(1e-9, 1e9)


@given(st.lists(values, min_size=1, max_size=8), st.booleans())
def test_an_axis_shows_every_value_within_its_ends(found: list[float], zero: bool) -> None:
    axis = Axis.around(found, 100.0, 20.0, zero=zero)
    assert axis.low < axis.high and (axis.low <= 0 or not zero)
    for value in found:
        assert axis.low <= value <= axis.high and 20.0 <= axis(value) <= 100.0
    assert axis(axis.low) == 100.0 and axis(axis.high) == 20.0


@given(st.lists(positive, min_size=1, max_size=8))
def test_a_logarithmic_axis_keeps_ratios(found: list[float]) -> None:
    axis = Axis.around([*found, 0.0, math.nan], 0.0, 100.0, log=True)
    middle = math.sqrt(axis.low * axis.high)
    assert axis(middle) == pytest.approx(50.0)
    assert math.isnan(axis(0.0)) and all(0 <= axis(value) <= 100 for value in found)


@given(st.lists(values, min_size=1, max_size=8))
def test_ticks_are_few_rising_and_within(found: list[float]) -> None:
    axis = Axis.around(found, 0.0, 100.0)
    ticks = axis.ticks()
    assert 1 <= len(ticks) <= 6 and list(ticks) == sorted(set(ticks))
    width = axis.high - axis.low
    assert all(axis.low - 1e-6 * width <= tick <= axis.high + 1e-6 * width for tick in ticks)


@given(positive, st.floats(1.2, 1e6))
def test_logarithmic_ticks_are_few_rising_and_within(low: float, ratio: float) -> None:
    ticks = Axis(low, low * ratio, 0.0, 100.0, True).ticks()
    assert 1 <= len(ticks) <= 6 and list(ticks) == sorted(set(ticks))


@given(st.text(st.characters(exclude_categories=("Cs", "Cc"))))
def test_any_words_are_text(words: str) -> None:
    root = ElementTree.fromstring(svg.tag("g", svg.text(1, 2, words), data_name=words or "x"))
    assert (root[0].text or "") == words and root.get("data-name") == (words or "x")


@pytest.mark.parametrize("index", range(svg.SERIES))
def test_every_series_has_a_shape_of_its_own(index: int) -> None:
    others = {svg.marker(k, 10, 10).replace(svg.look(k), "") for k in range(svg.SERIES) if k != index}
    assert svg.marker(index, 10, 10).replace(svg.look(index), "") not in others
    ElementTree.fromstring(svg.marker(index, 10, 10, 4, "a < b"))


def test_a_line_breaks_where_there_is_nothing() -> None:
    assert 'd="M0 1M2 3L4 5"' in svg.line([(0, 1), (1, math.nan), (2, 3), (4, 5)])
    assert svg.line([(math.nan, 0)]) == ""


def test_coordinates_have_no_needless_digits() -> None:
    assert [svg.number(v) for v in (-0.01, 2.0, 2.25, 2.349)] == ["0", "2", "2.2", "2.3"]
    assert [svg.plain(v) for v in (0.0, 12500.0, 0.1 + 0.2, 2e-5, 3e7)] == ["0", "12,500", "0.3", "2e-05", "3e+07"]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_the_front_is_what_nothing_beats(points: list[tuple[int, int]]) -> None:
    found = front_of([(float(a), float(b)) for a, b in points])
    for point in points:
        beaten = any(other != point and other[0] <= point[0] and other[1] <= point[1] for other in points)
        assert (point in found) == (not beaten)


def test_names_of_points_do_not_lie_on_one_another() -> None:
    points = [
        ("ptq", 10576.0, 0.2939),
        ("qat", 10576.0, 0.2925),
        ("ptq-gptq", 9200.0, 0.2987),
        ("int16x8", 6672.0, 0.03),
    ]
    drawn = pareto("error", "bytes", "error", points)
    names = [name.upper() for name, _, _ in points]
    boxes = []
    for attributes, name in re.findall(r"<text ([^>]*)>([^<]*)</text>", drawn):
        if name in names:
            at = dict(re.findall(r'(\S+)="([^"]*)"', attributes))
            wide = LETTER * len(name)
            left = float(at["x"]) - {"start": 0, "middle": wide / 2, "end": wide}[at["text-anchor"]]
            boxes.append((left, float(at["y"]) - 9, left + wide, float(at["y"])))
    assert len(boxes) == len(names)
    for (a, b, c, d), (e, f, g, h) in combinations(boxes, 2):
        assert c <= e or g <= a or d <= f or h <= b
