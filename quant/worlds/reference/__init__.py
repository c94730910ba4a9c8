"""The reference policy of the convoy world as Stable-Baselines3 saved it, its golden outputs and its training log."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def reference_policy_path() -> Path:
    """The checkpoint (an SB3 ``.zip``)."""
    return _path("policy.zip")


def golden_path() -> Path:
    """Observations, and what Stable-Baselines3's own policy gave for them (``.npz``)."""
    return _path("golden.npz")


def training_log_path() -> Path:
    """How it was trained and what it is worth (JSON)."""
    return _path("training.json")


def _path(name: str) -> Path:
    return Path(str(files(__name__) / name))
