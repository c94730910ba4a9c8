"""What is seen of 200 things done to recorded drives: ``python -m benchmarks.mutations --policy P --drive D ...``.

Each mutation does one thing that happens to recordings: a factor, a swap, a sign, an offset, a delay, another rate, a
wrong mask, a stack in another order. It counts as caught when anything is found, and as named when a finding says what
was done: its kind, its columns, and its factor, frames or slots. What changes nothing is not generated; what cannot be
seen is generated and counts as missed. Drives of an ego of 6 are stacked to one of 18, too.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.dataset import read_drive
from quant.dataset.build import held_to_contract
from quant.errors import InputError
from quant.observation.findings import NAMES, Finding
from quant.observation.hypotheses import FACTORS
from quant.observation.resolve import Bounds
from quant.policy import Policy, load_policy
from quant.policy.policy import Dense

Arrays = dict[str, NDArray[Any]]
KINDS = ("scale", "scale all", "swap", "sign", "offset", "late", "rate", "dropped", "mask", "order", "frozen")
FRAMES, OF_ONE = 3, 6
"""The stack that is made of drives with this ego."""


@dataclass(frozen=True)
class Mutation:
    """One thing done to a drive.

    Attributes:
        kind: of `KINDS`.
        what: in words, for the list.
        drive: its arrays after.
        named: whether a finding says what was done.
        beside: it has to be held against another drive: a stack in the reverse order is a stack in the other order.
    """

    kind: str
    what: str
    drive: Arrays
    named: Callable[[Finding], bool]
    beside: bool = False


@dataclass(frozen=True)
class Subject:
    """A drive and the policy it is for."""

    name: str
    policy: Policy
    drive: Arrays
    other: Arrays | None = None


def stacked(drive: Arrays, newest_first: bool) -> Arrays:
    """Three frames of the ego in one, the first frames repeated."""
    ego = drive["ego"]
    frames = [np.concatenate([np.repeat(ego[:1], lag, axis=0), ego[: len(ego) - lag]]) for lag in range(FRAMES)]
    return {**drive, "ego": np.concatenate(frames if newest_first else frames[::-1], axis=1)}


def widened(policy: Policy) -> Policy:
    """A policy of the stack, with the bounds of one frame for each: what it does is of no interest here."""
    first = policy.head[0]
    ego = first.weight[:, policy.embedding_size :]
    weight = np.concatenate([first.weight[:, : policy.embedding_size], *[ego] * FRAMES], axis=1)
    bounds = policy.bounds
    if bounds is not None:
        bounds = Bounds(bounds.ego_low * FRAMES, bounds.ego_high * FRAMES, bounds.peers_low, bounds.peers_high)
    return replace(policy, head=(Dense(weight, first.bias, first.activation), *policy.head[1:]), bounds=bounds)


def examine(policy: Policy, drives: Sequence[Arrays], folder: Path) -> tuple[Finding, ...]:
    """Everything found in drives, refused or not."""
    paths = []
    for number, drive in enumerate(drives):
        path = folder / f"{number}.npz"
        np.savez(path, **drive)  # type: ignore[arg-type]
        paths.append(path)
    return held_to_contract(policy, [read_drive(path, policy, NAMES) for path in paths], allow=NAMES)


def mutate(rng: np.random.Generator, kind: str, drive: Arrays) -> Mutation | None:
    """One mutation of this kind; None where what was drawn changes nothing."""
    made = MAKERS[kind](rng, {key: array.copy() for key, array in drive.items()})
    same = all(np.array_equal(made.drive[key], drive[key]) for key in drive) if made is not None else True
    return None if same else made


def _column(rng: np.random.Generator, drive: Arrays) -> tuple[str, int]:
    widths = {"ego": drive["ego"].shape[1], "peers": drive["peers"].shape[2]}
    key = str(rng.choice(["ego", "peers"]))
    return key, int(rng.integers(widths[key]))


def _is_column(finding: Finding, key: str, *indices: int) -> bool:
    words = "ego" if key == "ego" else "peers'"
    return finding.column.startswith(words) and set(finding.indices) == set(indices)


def _is_one_of(finding: Finding, key: str, index: int) -> bool:
    return index in finding.indices and len(finding.indices) <= 2 and _is_column(finding, key, *finding.indices)


def _scale(rng: np.random.Generator, drive: Arrays) -> Mutation | None:
    key, index = _column(rng, drive)
    factor = float(rng.choice(FACTORS)) ** int(rng.choice([1, 1, 1, -1]))
    drive[key][..., index] *= factor

    def named(finding: Finding) -> bool:
        right = finding.name == "column-scaled" and _is_column(finding, key, index)
        return right and _says(finding.cause, factor)

    return Mutation("scale", f"{key} {index} times {factor:.4g}", drive, named)


def _says(cause: str, factor: float) -> bool:
    whole = factor if factor > 1 else 1 / factor
    return ("times" if factor > 1 else "divided") in cause and (
        f"{whole:g}" in cause.replace(":", " ").split() or (abs(whole - 180 / np.pi) < 1e-6 and "180/pi" in cause)
    )


def _scale_all(rng: np.random.Generator, drive: Arrays) -> Mutation:
    keys = [["ego", "peers"], ["ego"], ["peers"]][int(rng.integers(3))]
    factor = float(rng.choice(FACTORS))
    for key in keys:
        drive[key] *= factor

    def named(finding: Finding) -> bool:
        owners = all(("peers'" if key == "peers" else "ego's") in finding.cause for key in keys)
        return finding.name == "all-scaled" and owners and _says(finding.cause, factor)

    return Mutation("scale all", f"{' and '.join(keys)} times {factor:.4g}", drive, named)


def _swap(rng: np.random.Generator, drive: Arrays) -> Mutation | None:
    key, one = _column(rng, drive)
    other = int(rng.integers(drive[key].shape[-1]))
    drive[key][..., [one, other]] = drive[key][..., [other, one]]

    def named(finding: Finding) -> bool:
        return finding.name == "columns-swapped" and _is_column(finding, key, one, other)

    return Mutation("swap", f"{key} {one} and {other}", drive, named)


def _sign(rng: np.random.Generator, drive: Arrays) -> Mutation:
    key, index = _column(rng, drive)
    drive[key][..., index] *= -1
    return Mutation(
        "sign",
        f"{key} {index}",
        drive,
        # An ego without a heading has no left and right of its own: rel_y or rel_heading.
        lambda finding: finding.name == "sign-flipped" and _is_one_of(finding, key, index),
    )


def _offset(rng: np.random.Generator, drive: Arrays) -> Mutation:
    key, index = _column(rng, drive)
    offset = np.float32(rng.choice([-0.5, -0.2, 0.2, 0.5, 1.0]))
    everywhere = key == "ego" or rng.random() < 0.5
    drive[key][..., index] += offset if everywhere else offset * drive["peer_mask"]
    where = "" if everywhere else ", present ones"
    return Mutation(
        "offset",
        f"{key} {index} {offset:+.1f}{where}",
        drive,
        lambda finding: finding.name == "column-offset" and _is_column(finding, key, index),
    )


def _late(rng: np.random.Generator, drive: Arrays) -> Mutation:
    key, index = _column(rng, drive)
    frames = int(rng.integers(1, 11))
    column = drive[key][..., index].copy()
    drive[key][frames:, ..., index] = column[:-frames]
    if key == "peers" and rng.random() < 0.5:  # as a recorder that clears absent peers writes it
        drive[key][drive["peer_mask"] == 0] = 0

    def named(finding: Finding) -> bool:
        right = finding.name == "column-late" and _is_column(finding, key, index)
        return right and f" {frames} frame" in finding.cause and "late" in finding.cause

    return Mutation("late", f"{key} {index} by {frames}", drive, named)


def _rate(rng: np.random.Generator, drive: Arrays) -> Mutation:
    factor = float(rng.choice([10.0, 0.1, 1e3, 1e-3, 100.0, 0.01]))
    drive["t_ms"] = drive["t_ms"] * factor
    text = f"{factor:g} times" if factor > 1 else f"1/{1 / factor:g} of"
    return Mutation(
        "rate",
        f"t_ms times {factor:g}",
        drive,
        lambda finding: finding.name == "time-unit" and text in finding.cause,
    )


def _dropped(rng: np.random.Generator, drive: Arrays) -> Mutation:
    every = int(rng.choice([2, 3, 4, 5, 10]))
    return Mutation(
        "dropped",
        f"one frame in {every} kept",
        {key: array[::every] for key, array in drive.items()},
        lambda finding: "missing" in finding.cause,
    )


def _mask(rng: np.random.Generator, drive: Arrays) -> Mutation:
    mask, what = drive["peer_mask"], str(rng.choice(["inverted", "ones", "slot", "frames"]))
    drive["peer_mask"] = {
        "inverted": 1 - mask,
        "ones": np.ones_like(mask),
        "slot": np.roll(mask, 1, axis=1),
        "frames": np.roll(mask, 5, axis=0),
    }[what]
    said = {"inverted": "is inverted", "ones": "all ones", "slot": "by 1 slot", "frames": "5 frames late"}[what]
    return Mutation("mask", what, drive, lambda finding: finding.name.startswith("mask") and said in finding.cause)


def _order(rng: np.random.Generator, drive: Arrays) -> Mutation | None:
    ego = drive["ego"]
    if ego.shape[1] != FRAMES * OF_ONE:
        return None
    orders = list(permutations(range(FRAMES)))[1:]
    order = orders[int(rng.integers(len(orders)))]
    drive["ego"] = ego.reshape(len(ego), FRAMES, OF_ONE)[:, list(order)].reshape(ego.shape)
    beside = order == orders[-1]
    return Mutation(
        "order",
        f"frames {order}{', beside the other drive' if beside else ''}",
        drive,
        lambda finding: finding.name == "stack-order",
        beside,
    )


def _frozen(rng: np.random.Generator, drive: Arrays) -> Mutation | None:
    """A function of the peers, as presets of the field have them, or a column of a stack's older frame."""
    ego = drive["ego"]
    width = ego.shape[1]
    if width == FRAMES * OF_ONE:
        older = [column for column in range(width) if column not in _newest(ego)]
        index = int(rng.choice([column for column in older if np.ptp(ego[:, column]) > 0]))
    else:
        index = int(rng.choice([3, 4] if width == 5 else [2, 3, 5]))
    ego[:, index] = ego[int(rng.integers(len(ego))), index]
    return Mutation(
        "frozen",
        f"ego {index} at {ego[0, index]:.3g}",
        drive,
        lambda finding: finding.name == "column-frozen" and finding.certain and _is_column(finding, "ego", index),
    )


def _newest(ego: NDArray[Any]) -> range:
    """The columns of a stack's newest frame: the first ones where the others follow them."""
    first = np.array_equal(ego[1:, OF_ONE : 2 * OF_ONE], ego[:-1, :OF_ONE])
    return range(OF_ONE) if first else range((FRAMES - 1) * OF_ONE, FRAMES * OF_ONE)


MAKERS: dict[str, Callable[[np.random.Generator, Arrays], Mutation | None]] = {
    "scale": _scale,
    "scale all": _scale_all,
    "swap": _swap,
    "sign": _sign,
    "offset": _offset,
    "late": _late,
    "rate": _rate,
    "dropped": _dropped,
    "mask": _mask,
    "order": _order,
    "frozen": _frozen,
}


def mutations(subjects: Sequence[Subject], count: int, seed: int) -> Iterator[tuple[Subject, Mutation]]:
    """As many mutations, the kinds in turn, of drives drawn at random."""
    rng = np.random.default_rng(seed)
    number = 0
    while number < count:
        subject = subjects[int(rng.integers(len(subjects)))]
        made = mutate(rng, KINDS[number % len(KINDS)], subject.drive)
        if made is not None and not (made.beside and subject.other is None):
            number += 1
            yield subject, made


def subjects_of(policies: Sequence[Path], drives: Sequence[Path]) -> list[Subject]:
    """Every drive with the policy of its width; those of an ego of 6 stacked, too, in both orders."""
    by_width = {policy.ego_size: policy for policy in map(load_policy, policies)}
    found = []
    for path in drives:
        with np.load(path) as archive:
            drive = {key: archive[key] for key in ("ego", "peers", "peer_mask", "t_ms")}
        found.append(Subject(path.stem, by_width[drive["ego"].shape[1]], drive))
    ones = [one for one in found if one.policy.ego_size == OF_ONE]
    for number, one in enumerate(ones):
        other = ones[number - 1].drive if len(ones) > 1 else None
        for first in (False, True):
            found.append(
                Subject(
                    f"{one.name} stacked, newest {'first' if first else 'last'}",
                    widened(one.policy),
                    stacked(one.drive, first),
                    None if other is None else stacked(other, first),
                )
            )
    return found


def main() -> None:
    """Prints what was found in the originals and the table of the mutations by kind."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policy", type=Path, action="append", required=True)
    parser.add_argument("--drive", type=Path, action="append", required=True)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--all", action="store_true", help="list every mutation, not only what was missed or misnamed")
    arguments = parser.parse_args()
    subjects = subjects_of(arguments.policy, arguments.drive)
    table = {kind: [0, 0, 0] for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        alarms = 0
        for subject in subjects:
            for finding in examine(subject.policy, [subject.drive], Path(folder)):
                alarms += 1
                print(f"alarm on {subject.name}: {finding.warning}")
        for subject, mutation in mutations(subjects, arguments.count, arguments.seed):
            try:
                others = [subject.other] if mutation.beside and subject.other is not None else []
                found = examine(subject.policy, [mutation.drive, *others], Path(folder))
            except InputError as error:
                found = (Finding("refused", True, "", "", (), str(error), ""),)
            named = any(map(mutation.named, found))
            table[mutation.kind][0] += 1
            table[mutation.kind][1] += bool(found)
            table[mutation.kind][2] += named
            if not named or arguments.all:
                print(f"{'' if named else 'NOT '}named: {mutation.kind}, {mutation.what}, {subject.name}")
                for finding in found:
                    print(f"    {finding.warning}")
    print(f"\noriginals: {len(subjects)}, alarms: {alarms}")
    print(f"{'kind':12}{'made':>6}{'caught':>8}{'named':>8}")
    for kind, row in table.items():
        print(f"{kind:12}{row[0]:6}{row[1]:8}{row[2]:8}")
    total = [sum(row[i] for row in table.values()) for i in range(3)]
    print(f"{'all':12}{total[0]:6}{total[1]:8}{total[2]:8}   {100 * total[2] / max(total[0], 1):.1f} % named")


if __name__ == "__main__":
    main()
