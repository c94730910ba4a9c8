"""Options and arguments that several commands share, and what reads them."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from quant.boards.kinds import NAMED
from quant.commands.completion import complete_boards, complete_ports, complete_runs, complete_tracks
from quant.commands.console import document_alone
from quant.errors import InputError
from quant.tracks.registry import DEFAULT_TRACKS, TRACKS, parse_tracks
from quant.worlds.registry import WORLDS

if TYPE_CHECKING:
    from quant.acceptance.limits import Limits
    from quant.boards.board import Board
    from quant.runs.settings import Settings

Command = TypeVar("Command", bound=Callable[..., Any])

REFERENCE = "reference policy"
"""What settings call the shipped checkpoint."""
DEFAULT_RUN = Path("runs/reference")
POOLINGS = ("max", "mean", "sum")
ACTIVATIONS = ("linear", "relu", "relu6", "tanh", "elu", "sigmoid")


def together(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several decorators as one, the first outermost."""

    def apply(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return apply


policy_options = together(
    click.option("--head", type=click.Path(path_type=Path), help="The policy head, where POLICY is only the encoder."),
    click.option("--pooling", type=click.Choice(POOLINGS), help="Pooling, where the file does not say it."),
    click.option(
        "--action-space", metavar="SPACE", help="Where the file does not say: discrete:4, box:0,1 or box:0,1:-1,1."
    ),
    click.option("--max-peers", type=click.IntRange(1), help="Peer slots, where the file does not say."),
    click.option(
        "--encoder-activation", type=click.Choice(ACTIVATIONS), help="Encoder activation, where the file does not say."
    ),
)
observation_option = click.option(
    "--observation",
    type=click.Path(path_type=Path),
    help="What is known of the policy's input, TOML; see quant observation.  [default: [tool.quant.observation]]",
)
allow_option = click.option(
    "--allow",
    multiple=True,
    metavar="NAME",
    help="Let a drive through in which this was found, by the name that its refusal gives; the verdict says so.",
)
source_options = together(
    observation_option,
    allow_option,
    click.option("--drive", "drives", multiple=True, type=click.Path(path_type=Path), help="A recorded drive, .npz."),
    click.option("--world", help=f"{', '.join(map(repr, WORLDS))}, or module:EnvId of your own Gymnasium environment."),
    click.option("--world-kwargs", metavar="JSON", help="Keyword arguments for your environment."),
    click.option("--episodes", type=click.IntRange(1), help="Nominal scenarios to judge on.  [default: 4000]"),
    click.option("--lossy-episodes", type=click.IntRange(0), help="Lossy scenarios to judge on.  [default: 2000]"),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of data, scenarios, training."),
    click.option(
        "--no-unseen",
        is_flag=True,
        help="Do not make every track again without each drive in turn; the verdict then says that nothing unseen was "
        "looked at.",
    ),
)
stress_options = together(
    click.option(
        "--stress-frames",
        type=click.IntRange(1),
        help="Frames over the declared range of the inputs to stress candidates on.  [default: 1000000]",
    ),
    click.option(
        "--no-stress",
        is_flag=True,
        help="Do not look for the worst over the range of the inputs; the verdict then says that nobody looked.",
    ),
)
training_seed_option = click.option(
    "--training-seed", type=click.IntRange(0), help="Of training alone.  [default: that of the run]"
)
limits_option = click.option(
    "--limits", "limits_file", type=click.Path(path_type=Path), help="Acceptance limits, TOML or JSON."
)
workers_option = click.option("--workers", type=click.IntRange(1), help="Processes.  [default: one for each processor]")
qat_steps_option = click.option("--qat-steps", type=click.IntRange(1), help="Optimizer steps of QAT.  [default: 1000]")
tracks_option = click.option(
    "--tracks",
    metavar="LIST",
    shell_complete=complete_tracks,
    help=f"Ways to INT8 that compete, of {', '.join(TRACKS)}.  [default: {','.join(DEFAULT_TRACKS)}]",
)
baseline_option = click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    default=Path("baseline.json"),
    show_default=True,
    help="The baseline's file.",
)
policy_argument = click.argument("policy", required=False, type=click.Path(path_type=Path))
run_argument = click.argument("run", type=click.Path(path_type=Path), shell_complete=complete_runs)
optional_run = click.argument("run", required=False, type=click.Path(path_type=Path), shell_complete=complete_runs)


def _document_alone(command: Callable[..., Any]) -> Callable[..., Any]:
    """With ``--json``, nothing but the document goes to standard output, whoever prints."""

    @wraps(command)
    def called(*args: Any, as_json: bool, **options: Any) -> Any:
        if not as_json:
            return command(*args, as_json=False, **options)
        with document_alone():
            return command(*args, as_json=True, **options)

    return called


json_option = together(
    click.option("--json", "as_json", is_flag=True, help="One JSON document instead; progress stays on stderr."),
    _document_alone,
)
_BOARD_REQUEST = ("port", "baud", "build_dir", "board_map")
board_options = together(
    click.option(
        "--board",
        "board_name",
        shell_complete=complete_boards,
        help=f"{NAMED}.",
    ),
    click.option("--port", shell_complete=complete_ports, help="Of the board, as pyserial opens it."),
    click.option("--baud", type=click.IntRange(9600), help="Of the board's line."),
    click.option("--board-map", type=click.Path(path_type=Path), help="YAML file of the bench's boards."),
    click.option("--build-dir", type=click.Path(path_type=Path), help="ESP-IDF build of the app."),
)


def board_of(options: dict[str, Any], default: str | None = None) -> Board:
    """Takes the board's options out of a command's, and gives the board, not yet open."""
    from quant.boards.discovery import BoardRequest, find_board

    name = options.pop("board_name") or (default if options["port"] is None else None)
    return find_board(BoardRequest(name, **{key: options.pop(key) for key in _BOARD_REQUEST}))


def tracks_of(text: str | None) -> tuple[str, ...]:
    """The tracks that ``--tracks`` names."""
    return DEFAULT_TRACKS if text is None else parse_tracks(text)


def checkpoint_of(policy: Path | None) -> Path:
    """The policy's file; without POLICY the shipped one."""
    if policy is not None:
        return policy
    from quant.worlds.reference import reference_policy_path

    return reference_policy_path()


def name_of(policy: Path | None) -> str:
    """What settings call the policy."""
    return REFERENCE if policy is None else str(policy)


def given_of(options: dict[str, Any]) -> dict[str, Any] | None:
    """What :data:`policy_options` gave, as settings keep it; None where that is nothing."""
    from quant.policy.spaces import parse_action_space
    from quant.runs.settings import GIVEN

    given = {name: options[name] for name in GIVEN if options.get(name) is not None}
    if "head" in given:
        given["head"] = str(given["head"])
    if "action_space" in given:
        parse_action_space(given["action_space"], "--action-space")
    return given or None


def settings_of(policy: Path | None, options: dict[str, Any]) -> Settings:
    """What :data:`policy_argument`, :data:`policy_options`, :data:`source_options`, :data:`stress_options` ask for."""
    from quant.runs.settings import Settings
    from quant.runs.sources import DEFAULT_EPISODES

    world = options["world"] or (None if policy is not None or options["drives"] else "convoy")
    asked = {"nominal": options["episodes"], "lossy": options["lossy_episodes"]}
    return Settings(
        checkpoint=name_of(policy),
        drives=tuple(str(path) for path in options["drives"]),
        world=world,
        world_kwargs=_json_object(options["world_kwargs"]),
        seed=options["seed"],
        episodes={name: default if asked[name] is None else asked[name] for name, default in DEFAULT_EPISODES.items()},
        given=given_of(options),
        observation=observation_of(options["observation"]),
        unseen=not options["no_unseen"],
        stress_frames=0 if options.get("no_stress") else options.get("stress_frames"),
        allow=_allowed(options["allow"]),
    )


def observation_of(file: Path | None) -> str | None:
    """The file of ``--observation``, or the nearest pyproject.toml that has such a table."""
    from quant.files import nearest_pyproject
    from quant.observation.storage import TABLE

    found = nearest_pyproject(Path.cwd(), TABLE) if file is None else file
    return None if found is None else str(found)


def _allowed(names: tuple[str, ...]) -> tuple[str, ...]:
    from quant.observation.findings import check_names

    return check_names(names)


def _json_object(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"not JSON: {error}", where="--world-kwargs", expected="an object like '{\"n\": 3}'"
        ) from error
    if not isinstance(value, dict):
        raise InputError("is not a JSON object", where="--world-kwargs", expected="an object like '{\"n\": 3}'")
    return value


def limits_of(file: Path | None) -> Limits:
    """The acceptance limits of ``--limits``, or the project's."""
    from quant.acceptance.limits import load_limits

    return load_limits(file)
