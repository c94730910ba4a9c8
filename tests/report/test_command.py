"""The report's command asks for the very run that it is the report of."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from quant.commands.options import settings_of, tracks_of
from quant.commands.run import run_command
from quant.report.material import Material
from quant.report.tables import command
from quant.runs.settings import Settings
from quant.runs.sources import DEFAULT_EPISODES

PLAIN = Settings("my policy.zip", ("a.npz", "b c.npz"), episodes=dict(DEFAULT_EPISODES), tracks=("ptq", "qat"))
CASES = {
    "drives": PLAIN,
    "reference": Settings("reference policy", world="convoy", seed=3, episodes={"nominal": 10, "lossy": 0}),
    "a world of one's own": replace(PLAIN, world="my.envs:Convoy-v0", world_kwargs={"n": 3, "name": "it's"}),
    "training": replace(PLAIN, qat_steps=7, training_seed=0, tracks=("ptq-gptq",)),
    "what the file does not say": replace(
        PLAIN, given={"head": "the head.keras", "pooling": "sum", "action_space": "box:-1,1:0,2", "max_peers": 3}
    ),
    "other frames": replace(PLAIN, stress_frames=5000, unseen=False, observation="my observation.toml"),
    "no stress": replace(PLAIN, stress_frames=0),
    "an activation": replace(PLAIN, given={"encoder_activation": "relu6"}),
}


@pytest.mark.parametrize("name", CASES)
def test_the_settings_come_back_from_their_command(name: str) -> None:
    settings = CASES[name]
    document = json.loads(json.dumps(asdict(settings)))
    words = shlex.split(command(cast(Material, SimpleNamespace(settings=document))))
    assert words[:2] == ["quant", "run"]
    options: dict[str, Any] = run_command.make_context("run", words[2:], resilient_parsing=False).params
    policy = cast(Path | None, options["policy"])
    asked = replace(
        settings_of(policy, options),
        qat_steps=options["qat_steps"],
        training_seed=options["training_seed"],
        tracks=settings.tracks and tracks_of(options["tracks"]),
    )
    assert asked == settings
