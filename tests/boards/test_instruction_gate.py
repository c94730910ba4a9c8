"""The gate on instruction counts, without an emulator: what it lets through and what not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from quant.testing.suites.hil.instruction_baseline import NAME, Baseline, propose, read_baselines

ACCEPTED = Baseline("esp32", "p" * 64, "e" * 64, {"ptq, 0 peers": 31_000, "ptq, 8 peers": 285_000})


def counted(elf: str, empty: int, full: int) -> Baseline:
    return replace(ACCEPTED, elf=elf * 64, ticks={"ptq, 0 peers": empty, "ptq, 8 peers": full})


@pytest.mark.parametrize(
    ("found", "complaints"),
    [
        (counted("e", 31_000, 285_000), 0),
        (counted("e", 31_002, 284_998), 0),
        (counted("e", 31_003, 285_000), 1),
        (counted("e", 31_000, 284_997), 1),
        (counted("f", 31_310, 287_850), 0),
        (counted("f", 31_311, 287_851), 2),
        (counted("f", 10, 20), 0),
    ],
)
def test_counts_may_shrink_but_not_grow(found: Baseline, complaints: int) -> None:
    assert len(ACCEPTED.complaints(found)) == complaints


def test_only_the_same_models_on_the_same_chip_are_compared() -> None:
    assert ACCEPTED.compares_with(counted("f", 1, 1))
    assert not ACCEPTED.compares_with(replace(ACCEPTED, pack="q" * 64))
    assert not ACCEPTED.compares_with(replace(ACCEPTED, target="esp32s3"))
    assert not ACCEPTED.compares_with(replace(ACCEPTED, ticks={"qat, 0 peers": 1}))


def test_a_proposal_is_the_next_baseline(tmp_path: Path) -> None:
    path = tmp_path / NAME
    assert read_baselines([path]) == []
    other = replace(ACCEPTED, pack="q" * 64)
    for one in (ACCEPTED, other, counted("f", 1, 2)):
        propose(path, one)
    assert read_baselines([path]) == [other, counted("f", 1, 2)]
