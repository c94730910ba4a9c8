"""Observation and action spaces as checkpoints describe them in text."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from quant.errors import InputError
from quant.observation.observations import EGO, PEER_MASK, PEERS
from quant.observation.resolve import Bounds
from quant.policy.policy import ActionSpace, Box, Discrete

MAX_ACTION_WIDTH = 65_536
_SHAPE = r"'{key}': (?:Box\(.*?, \(((?:\d{{1,9}}, ?)*(?:\d{{1,9}})?)\), \w+\)|MultiBinary\((\d{{1,9}})\))"
_NUMBERS = r"(\[[^()]*?\]|[^,()\[\]]+)"
_BOUNDS = rf"'{{key}}': Box\({_NUMBERS}, ?{_NUMBERS}, ?\("
UNBOUNDED = 1e6
"""A bound as far as this is none: nobody normalizes to it, and float32's own ends are written for infinity."""
_KEY = re.compile(r"[{ ]'(\w+)': [A-Z]")


@dataclass(frozen=True)
class ObservationSizes:
    """Sizes of one observation: ego (E,), peers (P, F), peer_mask (P,).

    Attributes:
        ego: E.
        max_peers: P.
        peer: F.
        others: keys no set policy knows.
        bounds: what the Boxes state; of a peer's feature the widest of all slots.
    """

    ego: int
    max_peers: int
    peer: int
    others: tuple[str, ...]
    bounds: Bounds


def observation_sizes(space: Any, where: str) -> ObservationSizes:
    """Reads the sizes off Gymnasium's printed ``Dict`` space.

    Args:
        space: the JSON that Stable-Baselines3 writes beside the pickled space; ``spaces`` is its text.
        where: what errors call it.

    Raises:
        InputError: it is not a ``Dict`` of ego, peers and peer_mask.
    """
    text = space.get("spaces") if isinstance(space, Mapping) else None
    text = text if isinstance(text, str) else str(text or "")
    shapes = {key: _shape(text, key) for key in (EGO, PEERS, PEER_MASK)}
    ego, peers, mask = shapes[EGO], shapes[PEERS], shapes[PEER_MASK]
    if ego is None or peers is None or mask is None or (len(ego), len(peers), len(mask)) != (1, 2, 1):
        raise InputError(
            f"the observation space is {text[:200] or 'not a Dict'}",
            where=where,
            expected="a Dict with the Boxes ego (E,), peers (P, F) and peer_mask (P,), which may be a MultiBinary",
        )
    if mask[0] != peers[0] or not 0 < peers[0] <= 4096:
        raise InputError(
            f"peers {peers} and peer_mask {mask} do not fit together", where=where, expected="(P, F), (P,)"
        )
    others = tuple(key for key in _KEY.findall(text) if key not in shapes)
    bounds = Bounds(*_box_bounds(text, EGO, ego, where), *_box_bounds(text, PEERS, peers, where))
    return ObservationSizes(ego[0], peers[0], peers[1], others, bounds)


def _box_bounds(text: str, key: str, shape: tuple[int, ...], where: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The least and the most value of each feature, as ``Box(low, high, shape, dtype)`` prints them.

    Infinite where it states none: as gym before 0.22, which printed the shape alone, or where NumPy abbreviated.
    """
    width = shape[-1]
    unstated = (-math.inf,) * width, (math.inf,) * width
    found = re.search(_BOUNDS.format(key=key), text[:1_000_000], re.DOTALL)
    if found is None:
        return unstated
    try:
        low, high = (np.array(end.replace("[", " ").replace("]", " ").split(), np.float32) for end in found.groups())
        low, high = (np.broadcast_to(end, shape) if end.size == 1 else end.reshape(shape) for end in (low, high))
    except ValueError:
        return unstated
    low, high = low.reshape(-1, width).min(axis=0), high.reshape(-1, width).max(axis=0)
    # A type's own ends are how a Box without bounds is often written.
    low, high = np.where(np.abs(low) < UNBOUNDED, low, -np.inf), np.where(np.abs(high) < UNBOUNDED, high, np.inf)
    if (upside_down := np.flatnonzero(low > high)).size:
        at = int(upside_down[0])
        raise InputError(
            f"the observation space has {key}[{at}] from {low[at]:g} to {high[at]:g}",
            where=where,
            expected="low <= high",
        )
    return tuple(map(float, low)), tuple(map(float, high))


def _shape(text: str, key: str) -> tuple[int, ...] | None:
    found = re.search(_SHAPE.format(key=key), text[:1_000_000], re.DOTALL)
    return None if found is None else tuple(int(size) for size in (found[1] or found[2]).replace(",", " ").split())


def action_space_of(space: Any, where: str) -> ActionSpace | None:
    """Reads the action space off the JSON that Stable-Baselines3 writes beside the pickled space.

    Returns:
        None where the text does not give it (NumPy abbreviated the bounds, or they are infinite).

    Raises:
        InputError: it is a kind of space that is not supported.
    """
    kind = re.search(r"\.(\w+)'>$", str(space.get(":type:", ""))) if isinstance(space, Mapping) else None
    if kind is None:
        raise InputError("no action space", where=where, expected="Discrete or Box")
    if kind[1] == "Discrete":
        return _discrete(space, where)
    if kind[1] == "Box":
        return _box(space, where)
    raise InputError(
        f"the action space {kind[1]} is not supported",
        where=where,
        expected="Discrete or Box",
        hint="a policy with several discrete actions can be flattened to one Discrete before training",
    )


def _discrete(space: Mapping[str, Any], where: str) -> Discrete:
    text = str(space.get("n", ""))
    if not re.fullmatch(r"\d{1,6}", text) or not 0 < int(text) <= MAX_ACTION_WIDTH:
        raise InputError(f"Discrete with n = {text[:40]!r}", where=where, expected="a number of actions")
    if str(space.get("start", "0")) != "0":
        raise InputError(
            f"Discrete actions that start at {str(space['start'])[:40]}", where=where, expected="actions from 0 up"
        )
    return Discrete(int(text))


def _box(space: Mapping[str, Any], where: str) -> Box | None:
    shape = space.get("_shape")
    if not isinstance(shape, list) or not all(isinstance(size, int) and 0 < size <= MAX_ACTION_WIDTH for size in shape):
        raise InputError(f"a Box of shape {str(shape)[:80]}", where=where, expected="its sizes")
    width = math.prod(shape)
    if width > MAX_ACTION_WIDTH:
        raise InputError(f"a Box of shape {shape}", where=where, expected=f"at most {MAX_ACTION_WIDTH} components")
    low, high = (_bounds(space, name, width, where) for name in ("low", "high"))
    if low is None or high is None or not np.isfinite([*low, *high]).all():
        return None
    return box(low, high, where)


def box(low: tuple[float, ...], high: tuple[float, ...], where: str) -> Box:
    """A Box whose bounds are finite and in order.

    Raises:
        InputError: they are not.
    """
    if len(low) != len(high) or not low or not all(math.isfinite(v) for v in (*low, *high)):
        raise InputError(f"action bounds {low} to {high}", where=where, expected="a finite low and high a component")
    if not all(lower < upper for lower, upper in zip(low, high, strict=True)):
        raise InputError(f"action bounds {low} to {high}", where=where, expected="every low below its high")
    return Box(low, high)


def _bounds(space: Mapping[str, Any], name: str, width: int, where: str) -> tuple[float, ...] | None:
    text, uniform = str(space.get(name, "")), str(space.get(f"{name}_repr", ""))
    try:
        if "..." in text or not text:  # NumPy abbreviates arrays of more than 1000 elements
            # Gymnasium before 1.2 writes the common bound, or an abbreviated array, here.
            return None if not _is_number(uniform) else (_float32(uniform),) * width
        values = tuple(_float32(word) for word in text.replace("[", " ").replace("]", " ").split())
    except ValueError:
        raise InputError(f"the Box's {name} is {text[:80]!r}", where=where, expected="numbers") from None
    if len(values) != width:
        raise InputError(f"the Box's {name} has {len(values)} numbers", where=where, expected=f"{width}, its shape")
    return values


def _float32(text: str) -> float:
    with np.errstate(over="ignore"):
        return float(np.float32(float(text)))


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", text) is not None


def action_space_to_json(space: ActionSpace) -> dict[str, Any]:
    """``{"kind": "discrete", "n": 4}`` or ``{"kind": "box", "low": [...], "high": [...]}``."""
    if isinstance(space, Discrete):
        return {"kind": "discrete", "n": space.n}
    return {"kind": "box", "low": list(space.low), "high": list(space.high)}


def action_space_from_json(value: Any, where: str) -> ActionSpace:
    """The inverse of `action_space_to_json`.

    Raises:
        InputError: it is neither form.
    """
    try:
        if value["kind"] == "discrete" and type(value["n"]) is int and 0 < value["n"] <= MAX_ACTION_WIDTH:
            return Discrete(value["n"])
        if value["kind"] == "box":
            return box(tuple(map(float, value["low"])), tuple(map(float, value["high"])), where)
    except (KeyError, TypeError, ValueError):
        pass
    raise InputError(
        f"the action space is {str(value)[:200]}",
        where=where,
        expected='{"kind": "discrete", "n": ...} or {"kind": "box", "low": [...], "high": [...]}',
    )


def parse_action_space(text: str, where: str = "action space") -> ActionSpace:
    """``discrete:4``, ``box:0,1`` or, with a low and high for each component, ``box:0,1:-1,1``.

    Raises:
        InputError: it is neither form.
    """
    kind, _, rest = text.partition(":")
    try:
        if kind == "discrete" and 0 < int(rest) <= MAX_ACTION_WIDTH:
            return Discrete(int(rest))
        if kind == "box":
            bounds = [part.split(",") for part in rest.split(":")]
            low, high = zip(*((float(low), float(high)) for low, high in bounds), strict=True)
            return box(low, high, where)
    except ValueError:
        pass
    raise InputError(f"not an action space: {text}", where=where, expected="discrete:4, box:0,1 or box:0,1:-1,1")
