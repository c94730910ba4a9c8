"""A baseline: the figures of an accepted run, under which conditions they hold, and how much a later one may be worse.

`baseline.json` is what ``quant accept`` writes (:mod:`quant.acceptance.accepting`) and docs/regression.md describes. It
holds the outcome of every episode, so that a later run is paired with it without the accepted run's folder. Its rules
are regression limits: how far from the *baseline* a figure may fall. The absolute limits
(:mod:`quant.acceptance.limits`) stand apart and are not in it.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

import numpy as np

from quant.acceptance.criterion import Evidence
from quant.errors import InputError
from quant.evaluation.evaluation import rounded
from quant.evaluation.statistics import Bits
from quant.files import read_json, sha256

SCHEMA_VERSION = 4
FILE = "baseline.json"
"""Where the baseline of a project is kept unless another file is named."""

Better = Literal["higher", "lower"]
Missing = Literal["regression", "ignore"]


@dataclass(frozen=True)
class Rule:
    """How one kind of figure is held against the baseline.

    Attributes:
        better: which way is better.
        unit: ``share``, ``bytes``, ``ms``, ...
        absolute: change that is tolerated, in ``unit``.
        relative: likewise, as a share of the baseline's value; the larger of the two counts.
        missing: what it means that a run lacks a figure which the baseline has.
    """

    better: Better
    unit: str
    absolute: float = 0.0
    relative: float = 0.0
    missing: Missing = "regression"

    def tolerance(self, value: float) -> float:
        """The change that is tolerated from this value of the baseline, in ``unit``."""
        return max(self.absolute, self.relative * abs(value))


LEAST_ACTING = 0.5
"""Share of what the float policy acted on before, on the same frames, below which a retraining is a regression.

Candidates are held against their own float policy. One that has unlearned to act takes them with it, and they agree all
the better. A retraining moves this by some percent; half is beyond any change of taste.
"""

CANDIDATE = "candidate"
"""The rule for a candidate that a run has not got at all; it has no figure."""

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "success": Rule("higher", "share", absolute=0.01),
        "collision": Rule("lower", "share", absolute=0.0025),
        "needless": Rule("lower", "m/s", absolute=0.02, relative=0.10),
        "agreement": Rule("higher", "share", absolute=0.005),
        # Mean errors up to a tenth apart come and go with the seed of a training.
        "mae": Rule("lower", "units", relative=0.10),
        "acts": Rule("higher", "share", relative=1 - LEAST_ACTING),
        "missed_action": Rule("lower", "frames"),
        "false_action": Rule("lower", "frames"),
        "worst_deviation": Rule("lower", "share", absolute=0.02, relative=0.25),
        # Of a drive: frames with an input beyond what the candidate represents.
        "saturated": Rule("lower", "share", absolute=0.001),
        "uncovered": Rule("lower", "columns"),
        "peer_encoder_bytes": Rule("lower", "bytes", relative=0.05),
        "policy_head_bytes": Rule("lower", "bytes", relative=0.05),
        "latency_p99": Rule("lower", "ms", relative=0.05),
        "latency_max": Rule("lower", "ms", relative=0.10),
        "mismatches": Rule("lower", "decisions"),
        "arena": Rule("lower", "bytes", relative=0.05),
        "heap_free": Rule("higher", "bytes", absolute=1024.0),
        "stack_left": Rule("higher", "bytes", absolute=128.0),
        CANDIDATE: Rule("higher", "candidates"),
    }
)
"""By kind of figure. A baseline file may hold others, also for a single figure as ``latency_p99[measured esp32]``."""


@dataclass(frozen=True, eq=False)
class Figure:
    """One figure of a candidate.

    Attributes:
        kind: one of `RULES`.
        of: the slice, the origin of the frames, or evidence and chip of a board; empty where there is nothing to tell
            apart.
        value: in the unit of its rule.
        evidence: where it comes from.
        group: the conditions it was taken under, a key of `Snapshot.conditions`.
        n: episodes or frames; None for a figure that is not a sample.
        bits: (n,) the outcome of each episode, for a figure that is their mean.
        interval: the ends of a mean's 95 % interval, for a figure whose episodes are not kept.
    """

    kind: str
    of: str
    value: float
    evidence: Evidence
    group: str
    n: int | None = None
    bits: Bits | None = None
    interval: tuple[float, float] | None = None

    @property
    def name(self) -> str:
        """As ``success[nominal]``."""
        return f"{self.kind}[{self.of}]" if self.of else self.kind

    def to_json(self) -> dict[str, Any]:
        """What does not follow from the name."""
        packed = None if self.bits is None else np.packbits(self.bits).tobytes()
        episodes = None if packed is None else {"bits": base64.b64encode(packed).decode(), "sha256": sha256(packed)}
        return {
            "value": rounded(self.value),
            "evidence": self.evidence,
            "conditions": self.group,
            "n": self.n,
            "interval": None if self.interval is None else [rounded(end) for end in self.interval],
            "episodes": episodes,
        }


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What of a run can be held against another run, or a later one against it.

    Attributes:
        name: of the run.
        winner: the track that would be deployed; None where every candidate fails a criterion.
        status: of the verdict.
        interface: what the policy sees and answers, in words. Runs of policies that differ in it are of other tasks: no
            figure of theirs is comparable.
        hashes: SHA-256 of policy, dataset and scenarios; policy and dataset may differ between runs that are compared.
        toolchain: versions of the packages on the host. They are no condition: what they change is to be noticed.
        conditions: by group, what has to be equal for figures of that group to be comparable, what explains most first.
        blind: by slice, or ``frames``, why its figures prove nothing.
        subjects: the figures of the float policy and of every candidate, by track.
        rules: by kind of figure or by a single figure's name.
    """

    name: str
    winner: str | None
    status: str
    interface: str
    hashes: Mapping[str, str | None]
    toolchain: Mapping[str, str]
    conditions: Mapping[str, Mapping[str, str]]
    blind: Mapping[str, str]
    subjects: Mapping[str, tuple[Figure, ...]]
    rules: Mapping[str, Rule] = field(default_factory=lambda: RULES)

    def rule(self, figure: Figure) -> Rule:
        """The figure's own rule, or that of its kind."""
        return self.rules.get(figure.name) or self.rules[figure.kind]

    def figure(self, track: str, name: str) -> Figure | None:
        """A figure by its name."""
        return next((figure for figure in self.subjects.get(track, ()) if figure.name == name), None)

    def to_json(self) -> dict[str, Any]:
        """The document of `baseline.json`."""
        return {
            "schema_version": SCHEMA_VERSION,
            "run": self.name,
            "winner": self.winner,
            "status": self.status,
            "interface": self.interface,
            "sha256": dict(self.hashes),
            "toolchain": dict(self.toolchain),
            "rules": {name: asdict(rule) for name, rule in self.rules.items()},
            "conditions": {group: dict(table) for group, table in self.conditions.items()},
            "blind": dict(self.blind),
            "subjects": {
                track: {figure.name: figure.to_json() for figure in figures} for track, figures in self.subjects.items()
            },
        }


def check_present(path: Path) -> None:
    """Sees that there is a baseline.

    Raises:
        InputError: there is none.
    """
    if not path.is_file():
        raise InputError(
            "there is no baseline", where=path, hint=f"accept a run first: quant accept RUN --baseline {path}"
        )


def load_baseline(path: Path, document: Any = None) -> Snapshot:
    """Reads what ``quant accept`` wrote; or ``document``, of which the file is only a part.

    Raises:
        InputError: the file is missing or malformed, of another schema version, or its figures do not follow from the
            episodes beside them.
    """
    document = read_json(path) if document is None else document
    version = document.get("schema_version") if isinstance(document, dict) else None
    if type(version) is not int or version != SCHEMA_VERSION:
        raise InputError(
            f"not a baseline of this version: schema_version {version!r}",
            where=path,
            expected=f"{SCHEMA_VERSION}",
            hint=f"accept a run again: quant accept RUN --force --baseline {path}",
        )
    try:
        baseline = _snapshot(document)
        _check(baseline)
        same = baseline.to_json() == document
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(
            f"the baseline lacks or garbles {error}", where=path, hint=f"quant accept RUN --force --baseline {path}"
        ) from error
    if not same:
        raise InputError(
            "holds unknown keys, or figures that do not follow from its episodes",
            where=path,
            expected="what quant accept wrote; only rules are for editing",
            hint=f"quant accept RUN --force --baseline {path}",
        )
    return baseline


def _snapshot(document: dict[str, Any]) -> Snapshot:
    return Snapshot(
        _text(document["run"], "run"),
        None if document["winner"] is None else _text(document["winner"], "winner"),
        _text(document["status"], "status"),
        _text(document["interface"], "interface"),
        {str(name): None if digest is None else _text(digest, name) for name, digest in document["sha256"].items()},
        {str(name): _text(version, name) for name, version in document["toolchain"].items()},
        {
            str(group): {str(k): _text(v, k) for k, v in table.items()}
            for group, table in document["conditions"].items()
        },
        {str(name): _text(reason, name) for name, reason in document["blind"].items()},
        {
            str(track): tuple(_figure(str(name), value) for name, value in table.items())
            for track, table in document["subjects"].items()
        },
        {str(name): _rule(str(name), value) for name, value in document["rules"].items()},
    )


def _rule(name: str, value: Any) -> Rule:
    if not isinstance(value, dict) or set(value) != {one.name for one in fields(Rule)}:
        raise ValueError(f"the rule {name}: it needs {', '.join(one.name for one in fields(Rule))}")
    rule = Rule(**value)
    numbers = (rule.absolute, rule.relative)
    if not all(type(x) in (int, float) and math.isfinite(x) and x >= 0 for x in numbers):
        raise ValueError(f"the rule {name}: absolute and relative are numbers, 0 or more")
    if rule.better not in get_args(Better) or rule.missing not in get_args(Missing) or not isinstance(rule.unit, str):
        raise ValueError(
            f"the rule {name}: better is {' or '.join(get_args(Better))}, missing is {' or '.join(get_args(Missing))}"
        )
    return rule


def _figure(name: str, value: dict[str, Any]) -> Figure:
    kind, _, rest = name.partition("[")
    n, interval, episodes = value["n"], value["interval"], value["episodes"]
    number = _number(value["value"], name)
    if n is not None and (type(n) is not int or n < 1):
        raise ValueError(f"{name}: n is {n!r}")
    bits = None
    if episodes is not None:
        packed = base64.b64decode(episodes["bits"], validate=True)
        if n is None or len(packed) != (n + 7) // 8 or sha256(packed) != episodes["sha256"]:
            raise ValueError(f"{name}: the episodes were changed")
        bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=n).astype(np.bool_)
        number = float(bits.mean())
    if value["evidence"] not in get_args(Evidence):
        raise ValueError(f"{name}: evidence {value['evidence']!r}")
    if interval is not None and (n is None or n < 2 or len(interval) != 2):
        raise ValueError(f"{name}: an interval has two ends and is of two values or more")
    ends = None if interval is None else (_number(interval[0], name), _number(interval[1], name))
    return Figure(kind, rest.removesuffix("]"), number, value["evidence"], value["conditions"], n, bits, ends)


def _check(baseline: Snapshot) -> None:
    """Whatever a comparison looks up is there."""
    if baseline.winner is None or baseline.winner not in baseline.subjects:
        raise ValueError(f"the winner: {baseline.winner!r} is none of its candidates")
    lacking = [kind for kind in RULES if kind not in baseline.rules]
    if lacking:
        raise ValueError(f"the rules: {', '.join(lacking)} missing")
    for track, figures in baseline.subjects.items():
        for figure in figures:
            if figure.kind not in baseline.rules or figure.group not in baseline.conditions:
                raise ValueError(f"{track} {figure.name}: no rule or no conditions for it")


def _text(value: Any, name: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name}: {value!r} is no text")
    return value


def _number(value: Any, name: str) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{name}: {value!r} is no finite number")
    return float(value)
