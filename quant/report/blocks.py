"""What a page is made of: sections of blocks of sentences, tables and pictures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quant.report.tables import Table

if TYPE_CHECKING:
    from markupsafe import Markup


@dataclass(frozen=True)
class Picture:
    """A picture, and what is seen in it and what that means."""

    image: Markup
    caption: str


@dataclass(frozen=True)
class Finding:
    """Something that was found out, and what to do about it (empty for nothing)."""

    why: str
    what: str = ""


@dataclass(frozen=True)
class Block:
    """A part of a section; whatever of it is empty is not shown.

    Attributes:
        title: of the block.
        words: sentences, each a paragraph.
        findings: listed below them.
        code: a command.
        tables: side by side where there is room.
        pictures: side by side.
        legend: (series index, name) shown above the pictures.
        parts: (index, name) of what is stacked in the pictures' bars.
        folded: shown only when it is asked for (and in print).
        large: the pictures are, where there is room.
    """

    title: str = ""
    words: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    code: str = ""
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()
    legend: tuple[tuple[int, str], ...] = ()
    parts: tuple[tuple[int, str], ...] = ()
    folded: bool = False
    large: bool = False


@dataclass(frozen=True)
class Section:
    """A titled section, with the name links know it by."""

    name: str
    title: str
    blocks: tuple[Block, ...]


def image(markup: str) -> Markup:
    """Markup of ours, in which whatever came from outside has been escaped."""
    from markupsafe import Markup

    return Markup(markup)


def pictures(found: Iterable[tuple[str, str]]) -> tuple[Picture, ...]:
    """Pictures of (markup, caption) pairs; pairs without markup are left out."""
    return tuple(Picture(image(markup), caption) for markup, caption in found if markup)
