"""What a person reads of a run: the text on the terminal, the HTML page and its Markdown summary."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from threadpoolctl import threadpool_limits

from quant.acceptance.comparison import Comparison
from quant.acceptance.decision import Verdict
from quant.dataset import Split
from quant.errors import InputError
from quant.files import read_json, write_text
from quant.report import terminal
from quant.report.board_tests import load_board_tests
from quant.report.material import Material
from quant.report.observation import coverage_table, unseen_table
from quant.report.second_opinion import second_opinion as terminal_opinion
from quant.report.stress import stress_table
from quant.runs.folder import PAGE, SETTINGS, SUMMARY, changing
from quant.runs.manifest import add_pages, check_manifest
from quant.runs.reading import limits_of, read_run
from quant.runs.run import Run, origins_of
from quant.runs.settings import read_settings
from quant.tracks.storage import load_curve

Hold = Callable[[Run], Comparison]
"""Holds a run against another, as :mod:`quant.runs.regression` does."""


def shown(run: Run, verdict: Verdict) -> Group:
    """Everything a person needs to judge a run, for a terminal."""
    more: list[RenderableType] = [coverage_table(run.coverage)]
    unseen = unseen_table(run.evaluations)
    more += [] if unseen is None else [unseen]
    more += [] if run.stress is None else [stress_table(run.stress)]
    more += [] if run.second is None else [terminal_opinion(run.second)]
    return terminal.report(run.evaluations, verdict, run.policy.facts, run.parity, run.devices, more)


def report(folder: Path, out: Path | None = None, hold: Hold | None = None) -> tuple[Path, Path]:
    """Writes the report of a finished run as HTML and Markdown: about the verdict that stands in ``winner.json``.

    Args:
        folder: the run.
        out: where the HTML goes, with the Markdown beside it; None: into the run, whose manifest then lists both.
        hold: against a baseline, for a section of its own; None: there is none.

    Returns:
        The paths of HTML and Markdown.

    Raises:
        InputError: it is not a finished run, a file is malformed, or the report cannot be written.
        StaleError: a file has changed since the run was finished, or artifacts do not belong together.
    """
    if out is not None and out.suffix.lower() not in (".html", ".htm"):
        raise InputError("is not a page's name", where=out, expected="a file that ends in .html")
    inside = folder / PAGE, folder / SUMMARY
    read_settings(folder)
    if out is None or out.resolve() == inside[0].resolve():
        with changing(folder):
            manifest, texts = _pages(folder, hold)
            add_pages(folder, manifest, texts)
        return inside
    _, texts = _pages(folder, hold)
    paths = out, out.with_suffix(".md")
    for path, text in zip(paths, texts.values(), strict=True):
        write_text(path, text)
    return paths


def _pages(folder: Path, hold: Hold | None) -> tuple[dict[str, Any], dict[str, str]]:
    """The manifest of a finished run, and the pages about it by name."""
    from quant.report.html import page
    from quant.report.markdown import summary

    manifest = check_manifest(folder)
    with threadpool_limits(1):
        run = read_run(folder)
        material = _material(run, manifest, None if hold is None else hold(run))
        return manifest, {PAGE: page(material), SUMMARY: summary(material)}


def _material(run: Run, manifest: Mapping[str, Any], baseline: Comparison | None = None) -> Material:
    tests = {name: run.folder / f"hil_{name}.json" for name in run.devices}
    return Material(
        **run.artifacts(),
        settings=read_json(run.folder / SETTINGS),
        manifest=manifest,
        verdict=run.verdict(limits_of(run.folder)),
        curves={track: load_curve(track, run.folder) for track in run.candidates},
        origins=origins_of(run.dataset, run.dataset.rows(Split.HELD_OUT)),
        tests={name: load_board_tests(path) for name, path in tests.items() if path.is_file()},
        baseline=baseline,
    )
