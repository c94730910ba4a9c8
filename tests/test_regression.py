"""What a board's reports give a comparison: which figures, under which conditions, and the worst of several boards."""

from __future__ import annotations

from dataclasses import replace

from quant.boards.report import DeviceReport
from quant.runs.regression import board_conditions, board_figures, by_evidence
from tests.boards.test_report import report


def figures(*reports: DeviceReport) -> dict[str, float]:
    return {figure.name: figure.value for figure in board_figures("ptq", by_evidence(reports))}


def with_arena(one: DeviceReport, used: int | None) -> DeviceReport:
    own = one.tracks["ptq"]
    models = {part: replace(model, arena_used=used) for part, model in own.models.items()}
    return replace(one, tracks={"ptq": replace(own, models=models)})


def test_a_chip_gives_times_bytes_and_memory() -> None:
    shown = report().evidence("ptq")
    assert figures(with_arena(report(), 620)) == {
        "latency_p99[measured esp32]": shown.latency_p99_ms,
        "latency_max[measured esp32]": shown.latency_max_ms,
        "mismatches[measured esp32]": 2,
        "arena[measured esp32]": 1240,
        "heap_free[measured esp32]": 180_000,
        "stack_left[measured esp32]": 2048,
    }


def test_what_the_board_does_not_know_is_no_figure() -> None:
    # The report's head has no figure of its arena: half a sum is none.
    assert "arena[measured esp32]" not in figures(report())
    bare = replace(report(), memory=replace(report().memory, heap_minimum=None, stack_left=None))
    assert not {"heap_free[measured esp32]", "stack_left[measured esp32]"} & set(figures(bare))


def test_a_hosts_clock_gives_no_latency() -> None:
    assert set(figures(report(evidence="computed", chip="linux"))) == {
        "mismatches[computed linux]",
        "heap_free[computed linux]",
        "stack_left[computed linux]",
    }


def test_of_several_boards_alike_the_worst_counts_and_others_stand_apart() -> None:
    worse = replace(report(name="bench-2"), memory=replace(report().memory, heap_minimum=90_000, stack_left=4000))
    emulated = report(name="qemu", evidence="emulated")
    found = figures(report(), worse, emulated)
    assert (found["heap_free[measured esp32]"], found["stack_left[measured esp32]"]) == (90_000, 2048)
    assert "latency_p99[emulated esp32]" in found


def test_a_track_that_was_not_on_the_board_has_no_figure_of_it() -> None:
    assert list(board_figures("qat", by_evidence([report()]))) == []


def test_the_toolchain_is_a_condition_and_the_very_board_is_not() -> None:
    assert board_conditions([report()]) == board_conditions([report(mac="24:0a:c4:00:00:02", elf_sha256="d" * 64)])
    for changed in (report(idf="v5.6"), report(engine="1.5.0"), report(kernels="1.2.6"), report(cpu_mhz=160)):
        assert board_conditions([report()]) != board_conditions([changed])
