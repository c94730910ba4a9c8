"""Shell completion: what prints the script, and what finds the words that only this folder and this desk know."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from quant.errors import QuantError
from quant.tracks.registry import TRACKS

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

INSTALL = {
    "bash": """eval "$(quant completion bash)"   # in ~/.bashrc""",
    "zsh": """eval "$(quant completion zsh)"   # in ~/.zshrc, after compinit""",
    "fish": "quant completion fish > ~/.config/fish/completions/quant.fish",
}
"""How each shell is told, once."""

RUN_FILES = ("manifest.json", "settings.json")
"""What makes a folder a run, finished or not."""


@click.command("completion")
@click.argument("shell", type=click.Choice(tuple(INSTALL)))
def completion_command(shell: str) -> None:
    """Prints the script that lets a shell complete commands, options, runs, tracks, boards and ports.

    \b
    bash  eval "$(quant completion bash)"   in ~/.bashrc
    zsh   eval "$(quant completion zsh)"    in ~/.zshrc, after compinit
    fish  quant completion fish > ~/.config/fish/completions/quant.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None  # click brings all three
    group = click.get_current_context().find_root().command
    # Not source(), which starts a shell to ask for its version, and bash of today is what anybody has.
    made = kind(group, {}, "quant", "_QUANT_COMPLETE")
    click.echo(f"# To install: {INSTALL[shell]}\n{made.source_template % made.source_vars()}")


def _completer(words: Callable[[click.Context, str], Iterable[str]]) -> Completer:
    """What click asks for words; what cannot be found out is not offered, and nothing is said in the user's prompt."""

    def complete(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
        try:
            return [CompletionItem(word) for word in words(context, incomplete) if word.startswith(incomplete)]
        except (QuantError, OSError, ValueError):
            return []

    return complete


def _runs(_: click.Context, incomplete: str) -> Iterable[str]:
    """The runs in the folder that is typed so far, and one and two levels below it."""
    typed = incomplete[: incomplete.rfind("/") + 1]
    base = Path(typed)
    levels = (f"{way}/{name}" for way in ("[!.]*", "[!.]*/[!.]*") for name in RUN_FILES)
    found = {path.parent.relative_to(base).as_posix() for level in levels for path in base.glob(level)}
    return sorted(typed + folder for folder in found)


def _tracks(context: click.Context, incomplete: str) -> Iterable[str]:
    """``ptq,q`` goes on to ``ptq,qat``."""
    before, comma, _ = incomplete.rpartition(",")
    return (f"{before}{comma}{track}" for track in TRACKS if track not in before.split(","))


def _tracks_of_run(context: click.Context, _: str) -> Iterable[str]:
    from quant.runs.settings import read_settings

    # Where the option that waits for its value ended the parsing, the arguments before it are left as they are.
    run: Any = context.params.get("run") or next(iter(context.args), None)
    return TRACKS if run is None else read_settings(Path(run)).tracks


def _boards(context: click.Context, _: str) -> Iterable[str]:
    from quant.boards.board_map import RESERVED, find_board_map

    try:
        mapped = tuple(find_board_map(context.params.get("board_map")).boards)
    except QuantError:
        mapped = ()
    return (*RESERVED, *mapped)


def _ports(context: click.Context, _: str) -> Iterable[str]:
    from serial.tools import list_ports

    from quant.boards.board_map import find_board_map

    mapped = (entry.port for entry in find_board_map(context.params.get("board_map")).boards.values())
    there = (port.device for port in list_ports.comports())
    return dict.fromkeys(port for port in (*mapped, *there) if port)


complete_runs, complete_tracks, complete_tracks_of_run = map(_completer, (_runs, _tracks, _tracks_of_run))
complete_boards, complete_ports = map(_completer, (_boards, _ports))
