"""The page's colours: text can be read, and series are told apart by eyes of every kind, in light, dark and print."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from quant.report import html
from quant.report.svg import SERIES

TEMPLATE = Path(html.__file__).with_name("templates") / html.TEMPLATE
TEXT = ("ink", "soft", "accent", "pass", "fail", "open")
SHOWN = 5
"""Series that a page of four candidates has, float among them."""
SEEING = {
    "all cones": np.eye(3),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}
"""Linear RGB as it is seen (Machado, Oliveira, Fernandes, IEEE TVCG 15, 2009, severity 1)."""
TELL = 10.0
"""CIE76 distance of two colours from which they are told apart side by side without effort; 2.3 is just noticeable."""


def themes() -> dict[str, dict[str, np.ndarray]]:
    """Linear RGB of every variable, by theme; dark and print take from light what they do not set."""
    style = TEMPLATE.read_text()
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    assert len(blocks) == 3
    found = [dict(re.findall(r"--(\w[\w-]*): (#[0-9a-f]{3,6})", block)) for block in blocks]
    return {
        name: {key: linear(value) for key, value in (found[0] | own).items()}
        for name, own in zip(("light", "dark", "print"), found, strict=True)
    }


def linear(color: str) -> np.ndarray:
    """Linear RGB of #rgb or #rrggbb."""
    digits = color[1:] if len(color) == 7 else "".join(2 * digit for digit in color[1:])
    values = np.array([int(digits[at : at + 2], 16) for at in (0, 2, 4)]) / 255
    return np.asarray(np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4))


def contrast(one: np.ndarray, other: np.ndarray) -> float:
    """WCAG 2's contrast ratio."""
    low, high = sorted(float(color @ (0.2126, 0.7152, 0.0722)) for color in (one, other))
    return (high + 0.05) / (low + 0.05)


def lab(color: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65) of linear RGB."""
    to_xyz = np.array([(0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505)])
    x, y, z = np.cbrt(np.clip(to_xyz @ color, 1e-6, None) / (0.9505, 1.0, 1.089))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_text_stands_out_from_what_is_behind_it(theme: str) -> None:
    colors = themes()[theme]
    for name in TEXT:
        behind = ["paper", "panel", *(["open-wash", "fail-wash", "winner", "wash"] if name == "ink" else [])]
        for ground in behind:
            assert contrast(colors[name], colors[ground]) >= 4.5, (name, ground)
    for index in range(SERIES):
        assert contrast(colors[f"c{index}"], colors["paper"]) >= 3, index


@pytest.mark.parametrize("sight", SEEING)
@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_series_are_told_apart(theme: str, sight: str) -> None:
    colors = themes()[theme]
    for names in ([f"c{k}" for k in range(SHOWN)], [f"s{k}" for k in range(5)]):
        seen = {name: lab(np.clip(np.asarray(SEEING[sight]) @ colors[name], 0, 1)) for name in names}
        for one, other in combinations(names, 2):
            assert np.linalg.norm(seen[one] - seen[other]) >= TELL, (one, other)
