"""Instruction counts of decisions, and the baseline they are held against.

A file ``instructions.json`` has, for each pack and target, the counts that were accepted::

    {"schema_version": 1, "baselines": [{"target": "esp32", "pack": "<sha256>", "elf": "<sha256>",
                                         "ticks": {"ptq, 0 peers": 31234, ...}}]}

The pack and the target have to be the same for counts to be comparable; the firmware may differ, as it is its growth
that the gate is for. Counts of the very same firmware are held to the counter's own repeatability.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

NAME = "instructions.json"
REPEATABILITY = 2
"""Ticks by which two runs of the same program differ."""
GROWTH = 0.01


@dataclass(frozen=True)
class Baseline:
    """Accepted counts.

    Attributes:
        target, pack, elf: what was counted: chip, and SHA-256 of models and firmware.
        ticks: of a decision, by track and number of peers.
    """

    target: str
    pack: str
    elf: str
    ticks: Mapping[str, int]

    def compares_with(self, other: Baseline) -> bool:
        """Whether the other's counts may be held against these."""
        return (self.target, self.pack) == (other.target, other.pack) and set(other.ticks) <= set(self.ticks)

    def complaints(self, found: Baseline) -> list[str]:
        """What has grown; or, with the same firmware, what has changed at all."""
        same = found.elf == self.elf
        wrong = []
        for name, ticks in found.ticks.items():
            accepted = self.ticks[name]
            if abs(ticks - accepted) > REPEATABILITY if same else ticks > accepted * (1 + GROWTH):
                firmware = "the same firmware" if same else f"firmware {self.elf[:12]}"
                wrong.append(f"{name}: {ticks} ticks, {accepted} with {firmware}")
        return wrong


def read_baselines(paths: Iterable[Path]) -> list[Baseline]:
    """Of all of these files that exist, in their order."""
    found = []
    for path in paths:
        if path.is_file():
            found += [Baseline(**one) for one in json.loads(path.read_text())["baselines"]]
    return found


def propose(path: Path, found: Baseline) -> None:
    """Adds counts to a file, in place of those of the same pack and target."""
    kept = [one for one in read_baselines([path]) if (one.target, one.pack) != (found.target, found.pack)]
    document = {"schema_version": 1, "baselines": [asdict(one) for one in (*kept, found)]}
    path.write_text(json.dumps(document, indent=2) + "\n")
