"""The report as people get it: one page that holds, says what the run says, and lets nothing in from outside."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from quant.acceptance.limits import Limits
from quant.dataset import Split
from quant.dataset.storage import Made
from quant.errors import InputError, StaleError
from quant.evaluation.evaluation import FLOAT
from quant.report import tables
from quant.report.html import page
from quant.report.markdown import summary, table
from quant.report.material import Material
from quant.report.sections import _causes
from quant.runs.folder import MANIFEST, PAGE, SUMMARY, WINNER
from quant.runs.manifest import check_manifest
from quant.runs.pages import report
from quant.runs.steps import decide
from quant.tracks.candidate import SubModel
from tests.commandline import quant
from tests.report.conftest import HOSTILE, material_of

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
REQUIRED = "QUANT_REQUIRE_BROWSER"
"""Set where a browser is known to be installed, as on CI: then its absence fails the tests that need it."""
VOID = {"meta", "br", "hr", "img", "link", "input"}
SECTIONS = (
    "criteria",
    "comparison",
    "coverage",
    "stress",
    "cost",
    "boards",
    "actions",
    "peers",
    "causes",
    "codes",
    "training",
    "provenance",
)


class Page(HTMLParser):
    """Takes a page apart: every element that opens is closed in order; attributes, ids and text are kept."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing that is open"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def values(self, name: str) -> list[str]:
        return [value for _, attribute, value in self.attributes if attribute == name]


@pytest.fixture(params=["driven", "recorded", "stressed"])
def text(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(f"{request.param}_page")
    return found


@pytest.fixture
def run(driven: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(driven, tmp_path / "run"))


def test_every_element_is_closed_and_every_link_within_the_page_leads_somewhere(text: str) -> None:
    found = Page(text)
    ids = found.values("id")
    assert len(ids) == len(set(ids)) and set(SECTIONS) <= set(ids)
    assert {link.removeprefix("#") for link in found.values("href")} <= set(ids)


def test_nothing_comes_from_outside(text: str) -> None:
    found = Page(text)
    assert not {tag for tag, _, _ in found.attributes} & {"link", "img", "iframe", "object", "embed", "base", "use"}
    assert not found.values("src") and all(link.startswith("#") for link in found.values("href"))
    # SVG's namespace is a name, not an address that anything fetches.
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest", text)


def test_every_picture_is_xml_with_a_title_and_finite_numbers(text: str) -> None:
    pictures = re.findall(r"<svg .*?</svg>", text, re.DOTALL)
    assert len(pictures) > 15
    for one in pictures:
        root = ElementTree.fromstring(one)
        assert "nan" not in one.lower().replace("nominal", "") and "inf" not in re.sub(r">[^<]*<", "><", one)
        assert root.get("aria-hidden") or len(root[0].text or "") > 3


def test_the_same_run_gives_the_same_bytes(driven: Path, driven_material: Material, driven_page: str) -> None:
    again = material_of(driven)
    assert page(again) == driven_page and summary(again) == summary(driven_material)


def test_a_page_is_small(text: str) -> None:
    assert len(text.encode()) < 500_000


def test_a_name_is_text_and_not_markup(recorded: Path, recorded_page: str) -> None:
    assert "<script x" not in recorded_page and HOSTILE in Page(recorded_page).text.partition("Acceptance")[0]
    code = [line for line in summary(material_of(recorded)).splitlines() if "<script x" in line]
    assert code[0].startswith("# Quantization report: \\<script") and code[1].startswith("    quant run ")
    assert len(code) == 2


def test_the_top_says_winner_evidence_and_device(driven: Path, driven_material: Material, driven_page: str) -> None:
    winner = json.loads((driven / WINNER).read_text())
    top = Page(driven_page).text.partition("Acceptance criteria")[0]
    assert winner["headline"] in top and winner["device"] in top
    assert all(" ".join(sentence.split()) in top for sentence in winner["why"])
    assert tables.lead(driven_material) in top
    reached = list(winner["versus_float"][winner["winner"]])
    assert len(reached) == 2
    for one in reached:
        lost = one["lost_points"]
        words = f"{one['slice']}: {one['noninferiority']} (lost {lost['value']:.2f}, at most {lost['upper']:.2f} points"
        assert words in top


def test_every_criterion_stands_with_its_outcome_in_words(driven_material: Material, driven_page: str) -> None:
    cells = re.findall(r'<span class="mark (\w+)">(.*?)</span>', driven_page)
    wanted = [c.outcome.value for own in driven_material.verdict.assessments for c in own.criteria]
    assert sorted(kind for kind, _ in cells) == sorted(wanted)
    assert all(kind in words for kind, words in cells)


def test_success_never_stands_alone(driven_material: Material) -> None:
    driving = tables.driving(driven_material.evaluations)
    assert driving is not None
    names = [row[0].text for row in driving.rows if not row[0].mark]
    for place, name in enumerate(names):
        if name == "success":
            assert names[place + 1 : place + 4] == ["collision", "needless, m/s", "reward"]
    notes = [note for label, _, note in tables.key_figures(driven_material) if label.startswith("success")]
    assert len(notes) == 2 and all("collisions" in note and "needless" in note for note in notes)


def test_the_frames_are_those_of_the_evaluation(driven_material: Material) -> None:
    found = driven_material.frames
    for track in driven_material.candidates:
        overall = driven_material.evaluations[track].open_loop
        assert overall is not None
        same = found.actions[track] == found.actions[FLOAT]
        assert found.n == overall.overall.n and float(same.mean()) == pytest.approx(overall.overall.agreement.value)
        confusion = tables.confusion(track, found, tables.actions_of(driven_material))
        counts = np.array([[int(cell.text.replace(",", "")) for cell in row[1:]] for row in confusion.rows])
        assert (counts.sum(), np.trace(counts)) == (found.n, same.sum())


def test_the_codes_are_those_of_present_peers(driven_material: Material) -> None:
    found = driven_material.frames
    dataset = driven_material.dataset
    rows = dataset.rows(Split.HELD_OUT, Made.SEEN)
    present = int(dataset.column("peers")[rows].sum())
    for track, interfaces in found.interfaces.items():
        made = driven_material.candidates[track]
        sizes = {one.name: int(one.codes.sum()) for one in interfaces if "residuals" not in one.name}
        kinds = {"peer": made.peer_input, "ego": made.ego_input}
        names = {f"{kind} features, residuals" for kind, affine in kinds.items() if affine.residual}
        assert {one.name for one in interfaces} - set(sizes) == names
        policy = driven_material.policy
        assert sizes == {
            "peer features": present * policy.peer_size,
            "embeddings": present * policy.embedding_size,
            "pooled": found.n * policy.embedding_size,
            "ego features": found.n * policy.ego_size,
            "output": found.n * policy.action_space.width,
        }
        [embeddings] = [one for one in interfaces if one.name == "embeddings"]
        assert embeddings.zero == -128 and embeddings.real is not None and embeddings.real[0] == 0


def test_a_page_without_a_world_says_that_driving_was_not_tested(recorded_page: str) -> None:
    found = Page(recorded_page)
    assert "Driving was not tested" in found.text and "partings" not in found.values("id")
    assert "component 1" in found.text


def test_the_report_is_a_part_of_the_run_and_leaves_it_whole(run: Path) -> None:
    before = json.loads((run / MANIFEST).read_text())
    done = quant("report", run)
    assert (done.code, done.out.split()) == (0, [str(run / PAGE), str(run / SUMMARY)])
    after = check_manifest(run)
    assert set(after["files"]) - set(before["files"]) == {PAGE, SUMMARY}
    assert {**after, "files": None} == {**before, "files": None}
    first = (run / PAGE).read_bytes(), (run / MANIFEST).read_bytes()
    assert quant("report", run).code == 0 and ((run / PAGE).read_bytes(), (run / MANIFEST).read_bytes()) == first
    (run / PAGE).write_text("another")
    with pytest.raises(StaleError):
        check_manifest(run)


def test_a_new_decision_takes_the_pages_away(run: Path) -> None:
    report(run)
    decide(run, Limits(model_bytes=100))
    assert not (run / PAGE).exists() and not (run / SUMMARY).exists()
    report(run)
    found = Page((run / PAGE).read_text())
    assert "No winner: every candidate fails a criterion." in found.text and "✖ fail" in found.text
    assert "✖ fail: " in (run / SUMMARY).read_text()


def test_a_report_elsewhere_leaves_the_run_alone(run: Path, tmp_path: Path) -> None:
    before = {path.name for path in run.iterdir()}, (run / MANIFEST).read_bytes()
    done = quant("report", run, "-o", tmp_path / "out" / "mine.html")
    assert done.code == 0 and done.out.split() == [str(tmp_path / "out" / name) for name in ("mine.html", "mine.md")]
    assert ({path.name for path in run.iterdir()}, (run / MANIFEST).read_bytes()) == before


def test_what_is_no_page_or_no_finished_run_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="page's name"):
        report(run, run / "winner.json")
    (run / MANIFEST).unlink()
    done = quant("report", run)
    assert done.code == 2 and "not finished" in done.err and not (run / PAGE).exists()
    with pytest.raises(InputError, match="not a run folder"):
        report(tmp_path)


def test_markdown_tables_hold_together(driven_material: Material) -> None:
    text = summary(driven_material)
    for block in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1, block
    assert driven_material.verdict.headline in text.replace("\\", "")


def test_a_cell_of_markdown_is_one_cell() -> None:
    made = table(tables.Table(("a|b", "c"), ((tables.Cell("x | y\nz", "fail", "n|m"), tables.Cell("*")),)))
    assert made.splitlines() == ["| a\\|b | c |", "| --- | ---: |", "| ✖ fail: x \\| y (z; n\\|m) | \\* |"]


def test_every_picture_says_what_is_seen(text: str) -> None:
    figures = re.findall(r"<figure>(.*?)</figure>", text, re.DOTALL)
    captions = [re.search(r"</svg><figcaption>(.*?)</figcaption>", one, re.DOTALL) for one in figures]
    assert len(figures) == text.count('role="img"') > 15
    assert all(caption is not None and len(caption[1]) > 20 and "None" not in caption[1] for caption in captions)


def test_nothing_needs_the_script(driven_material: Material, driven_page: str) -> None:
    without = re.sub(r"<script>.*?</script>", "", driven_page, flags=re.DOTALL)
    assert Page(without).text == Page(driven_page).text
    assert not re.search(r"\son\w+=", without) and "hidden" not in Page(without).values("class")


def test_a_table_for_a_phone_says_in_each_cell_what_it_is_of(driven_page: str) -> None:
    stacked = re.findall(r'<table class="[^"]*stack">(.*?)</table>', driven_page, re.DOTALL)
    assert len(stacked) > 5
    for one in stacked:
        columns = [name for _, name in re.findall(r'<th scope="col"( class="number")?>(.*?)</th>', one)]
        for row in re.findall(r"<tr><th scope=\"row\".*?</tr>", one, re.DOTALL):
            assert re.findall(r'<td data-of="(.*?)"', row) == [name for name in columns[1:] if name]


def test_a_board_that_ran_some_of_the_candidates_is_reported(driven_material: Material) -> None:
    device = driven_material.devices["rig"]
    part = replace(device, tracks={"qat": device.tracks["qat"]})
    found = Page(page(replace(driven_material, devices={"rig": part}))).text
    assert "QAT: µs by stage" in found and "PTQ: µs by stage" not in found


def test_what_cannot_be_taken_apart_is_said_and_the_rest_shown(driven_material: Material) -> None:
    candidates = dict(driven_material.candidates)
    other = SubModel("policy_head", candidates["qat"].peer_encoder.tflite)
    made = replace(driven_material, candidates=candidates | {"qat": replace(candidates["qat"], policy_head=other)})
    first, *rest = _causes(made)
    assert set(made.anatomies) == {"ptq"} and set(made.unexplained) == {"qat"}
    assert first.words == (f"The error of QAT cannot be taken apart: {made.unexplained['qat']}.",) and len(rest) > 5


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    if CHROMIUM is None:
        # A machine that is to have one must not pass for having looked.
        assert not os.environ.get(REQUIRED), f"{REQUIRED} is set, and no Chromium is installed"
        pytest.skip(f"no Chromium is installed; set {REQUIRED} to make this a failure")
    home = tmp_path_factory.mktemp("chromium")
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={home}")
    return [CHROMIUM, *options, "--virtual-time-budget=4000", "--window-size=1300,1000"]


WATCH = "<script>window.failed = []; window.onerror = (words) => { window.failed.push(words); };</script>"
PROBE = """<script>
window.addEventListener("load", () => {
  for (const one of document.querySelectorAll("details")) one.open = true;
  const over = (one) => one.scrollWidth - one.clientWidth;
  const wide = over(document.documentElement);
  const boxes = [...document.querySelectorAll(".box:has(.stack)")].map(over);
  const pictures = [...document.querySelectorAll("figure svg")].map((one) => one.getBoundingClientRect().width);
  const head = [...document.querySelectorAll("table.sortable th")].find((one) => one.innerText.trim() === "n");
  const column = head.cellIndex;
  const order = () => [...head.closest("table").tBodies[0].rows].map((row) => row.cells[column].innerText);
  const button = head.querySelector("button");
  button.focus();
  const reached = document.activeElement === button;
  button.click();
  const up = order(), sorted = head.getAttribute("aria-sort");
  button.click();
  const down = order();
  const found = {up, down, sorted, reached, wide, boxes, pictures, errors: window.failed};
  parent.postMessage(JSON.stringify(found), "*");
});
</script>"""
AROUND = """<!DOCTYPE html><title>waiting</title><script>
window.addEventListener("message", (event) => { document.title = event.data; });
</script><iframe src="page.html" style="width:%dpx;height:900px;border:0"></iframe>"""
"""A window of a headless browser is never as narrow as a phone; a frame within it is."""


@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_shows_the_page_sorts_its_tables_and_needs_no_sideways_scrolling(
    width: int, browser: list[str], driven_page: str, tmp_path: Path
) -> None:
    probed = driven_page.replace("<head>", f"<head>{WATCH}", 1).replace("</body>", f"{PROBE}</body>", 1)
    (tmp_path / "page.html").write_text(probed)
    around = tmp_path / "around.html"
    around.write_text(AROUND % width)
    command = [*browser, "--dump-dom", around.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    title = re.search(r"<title>(\{.*?\})</title>", done.stdout)
    assert title is not None, done.stdout[:500]
    shown = json.loads(unescape(title[1]))
    up, down = ([int(n.replace(",", "")) for n in shown[way]] for way in ("up", "down"))
    assert shown["errors"] == [] and shown["wide"] <= 0 and shown["reached"] and shown["sorted"] == "ascending"
    assert up == sorted(up) and down == up[::-1] and len(up) > 5 and up[0] < up[-1]
    assert all(0 < one <= width for one in shown["pictures"]) and len(shown["pictures"]) > 15
    # On a phone no table is wider than it either.
    assert width > 700 or (len(shown["boxes"]) > 5 and max(shown["boxes"]) <= 0)
