"""The commands that talk to boards. Heavy packages are imported by the commands that use them."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from enum import IntEnum, IntFlag
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quant.commands.completion import complete_tracks_of_run
from quant.commands.console import show, show_json
from quant.commands.options import board_of, board_options, json_option, optional_run, run_argument
from quant.errors import InputError

if TYPE_CHECKING:
    from quant.boards.bench import Bench
    from quant.boards.report import Quantiles
    from quant.policy import Observations
    from quant.wire.messages import SlotInfo

track_option = click.option(
    "--track", shell_complete=complete_tracks_of_run, help="Which of its tracks.  [default: all, or the first]"
)


@click.command("pack")
@run_argument
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The file, as models.bin.")
@json_option
def pack_command(run: Path, output: Path, as_json: bool) -> None:
    """Packs a run's candidates into one file: the content of the board's models partition."""
    from quant.boards.pack import read_pack
    from quant.files import write_bytes
    from quant.runs.reading import pack_of

    pack = pack_of(run)
    write_bytes(output, pack)
    if as_json:
        show_json({"file": str(output), "bytes": len(pack), "sha256": read_pack(pack).sha256})
        return
    click.echo(f"{output}: {len(pack):,} bytes, sha256 {read_pack(pack).sha256[:12]} as boards report it")


@click.command("flash")
@run_argument
@board_options
@json_option
def flash_command(run: Path, as_json: bool, **options: Any) -> None:
    """Puts a run's candidates on a board: its models alone, where the app on it is that of the build."""
    from quant.runs.reading import pack_of

    with _bench(options, pack_of(run)) as bench:
        slots, name, prepared = bench.device.models().slots, bench.board.name, bench.prepared
    if as_json:
        models = {s.track: {"peer_encoder": s.peer_encoder.sha256, "policy_head": s.policy_head.sha256} for s in slots}
        done = {} if prepared is None else {"wrote": prepared.wrote.value, "why": prepared.why}
        show_json({"board": name, **done, "models": models})
        return
    click.echo(f"{name}: {prepared}")
    for slot in slots:
        click.echo(f"{slot.track}: {slot.peer_encoder.sha256[:12]} + {slot.policy_head.sha256[:12]}")


@click.group("board")
def board_group() -> None:
    """Boards: list them, ask them, time them, let them decide, or serve a virtual one."""


@board_group.command("list")
@click.option("--board-map", type=click.Path(path_type=Path), help="YAML file of the bench's boards.")
@json_option
def list_command(board_map: Path | None, as_json: bool) -> None:
    """What --board can name here, and whether it is there."""
    from quant.boards.inventory import known_boards

    boards = known_boards(board_map)
    if as_json:
        show_json([asdict(board) for board in boards])
        return
    _table(("board", "port", "state"), [(board.name, board.port, board.state) for board in boards])


@board_group.command("info")
@optional_run
@board_options
@json_option
def info_command(run: Path | None, as_json: bool, **options: Any) -> None:
    """Who a board is, which models it holds, and how it is. With RUN, it is given that run's models first."""
    with _bench(options, _pack(run)) as bench:
        hello, models, stats = bench.device.identity, bench.device.models(), bench.device.stats()
    if as_json:
        found = {"hello": asdict(hello), "models": asdict(models), "stats": asdict(stats)}
        show_json(json.loads(json.dumps(found, default=str)))
        return
    _table(("board", ""), [*_rows(hello), *_rows(stats)])
    size = "" if models.status else f", {models.size:,} bytes, sha256 {models.sha256[:12]}"
    click.echo(f"\nmodels: {models.words}{size}")
    if models.slots:
        _table(("track", "part", "bytes", "sha256", "arena", "operators"), list(_models(models.slots)))


@board_group.command("bench")
@optional_run
@board_options
@track_option
@click.option("--peers", type=click.IntRange(0), help="Only this number of peers.  [default: each]")
@click.option("--warmup", type=click.IntRange(0, 1000), default=20, show_default=True)
@click.option("--repeats", type=click.IntRange(1, 1000), default=200, show_default=True)
@json_option
def bench_command(
    run: Path | None, track: str | None, peers: int | None, warmup: int, repeats: int, as_json: bool, **options: Any
) -> None:
    """Times decisions by the board's own clock, stage by stage. With RUN, on that run's models and frames."""
    rows: list[tuple[str, int, dict[str, Quantiles]]] = []
    frames = None if run is None else _held_out(run)
    with _bench(options, _pack(run)) as bench:
        evidence = bench.device.identity.evidence.name.lower()
        for slot in _slots(bench, track):
            for n in range(slot.max_peers + 1) if peers is None else [peers]:
                frame = _frame(frames, slot, n)
                rows.append((slot.track, n, bench.device.bench(slot.track, frame, warmup, repeats)))
    if as_json:
        found = [{"track": t, "peers": n, "microseconds": {k: asdict(q) for k, q in s.items()}} for t, n, s in rows]
        show_json({"evidence": evidence, "warmup": warmup, "repeats": repeats, "times": found})
        return
    stages = list(rows[0][2])
    cells = [(t, str(n), *(f"{s[stage].median:.1f}" for stage in stages), _tail(s["total"])) for t, n, s in rows]
    _table(("track", "peers", *stages, "p99 / max"), cells)
    click.echo(f"microseconds, {evidence}; medians of {repeats} decisions after {warmup}")


@board_group.command("decide")
@optional_run
@board_options
@track_option
@click.option("--frame", type=click.IntRange(0), help="A held-out frame of RUN, by number.")
@click.option("--observation", metavar="FILE", help='JSON, {"ego": [...], "peers": [[...], ...]}; - is standard input.')
@json_option
def decide_command(
    run: Path | None, track: str | None, frame: int | None, observation: str | None, as_json: bool, **options: Any
) -> None:
    """Lets a board decide on one observation. With RUN, the host's decision stands beside it."""
    if (frame is None) == (observation is None) or (frame is not None and run is None):
        raise InputError("no observation", expected="--observation FILE, or RUN and --frame NUMBER")
    found = []
    given = b"" if observation is None else _read(observation)
    held_out = None if frame is None or run is None else _held_out(run, frame)
    with _bench(options, _pack(run)) as bench:
        for slot in _slots(bench, track):
            seen = _observation(given, slot) if held_out is None else held_out
            decided = bench.device.decide(slot.track, seen, interfaces=False)
            found.append(
                {
                    "track": slot.track,
                    "peers": int(seen.mask.sum()),
                    "values": [round(float(value), 6) for value in decided.values[0]],
                    "action": int(decided.actions[0]) if slot.action.name == "DISCRETE" else None,
                    "host": None if run is None else [round(float(v), 6) for v in _host(run, slot.track, seen)],
                    "microseconds": round(float(decided.microseconds[0, -1]), 3),
                    "evidence": bench.device.identity.evidence.name.lower(),
                }
            )
    if as_json:
        show_json(found)
        return
    for one in found:
        action = "" if one["action"] is None else f", action {one['action']}"
        host = "" if one["host"] is None else f", host {one['host']}"
        click.echo(
            f"{one['track']}, {one['peers']} peers: {one['values']}{action}{host}, "
            f"{one['microseconds']:g} us ({one['evidence']})"
        )


@board_group.command("serve")
@optional_run
@click.option("--link", type=click.Path(path_type=Path), help="A symbolic link to the port, removed at the end.")
@click.option("--baud", type=click.IntRange(300), help="Pace the line.  [default: as fast as it goes]")
def serve_command(run: Path | None, link: Path | None, baud: int | None) -> None:
    """Serves a virtual board on a pseudo-terminal, for any serial tool, until it is interrupted."""
    from quant.boards.virtual.board import VirtualBoard, VirtualOptions

    stopped = threading.Event()
    # Whoever reads the port may stop the board in the same moment.
    before = signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    try:
        with (
            VirtualBoard(_pack(run) or b"", VirtualOptions(baud=baud)) as board,
            _linked(link, board.port) as port,
            suppress(KeyboardInterrupt),
        ):
            click.echo(port)
            sys.stdout.flush()
            stopped.wait()
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _linked(link: Path | None, port: str) -> Iterator[str]:
    if link is None:
        yield port
        return
    try:
        # Left by a board that was killed: it leads nowhere, or to this port, whose name has come round again.
        if link.is_symlink() and (not link.exists() or link.samefile(port)):
            link.unlink()
        link.symlink_to(port)
    except OSError as error:
        hint = "another board may be served there" if link.is_symlink() else None
        raise InputError(f"the link cannot be made: {error.strerror}", where=link, hint=hint) from error
    try:
        yield str(link)
    finally:
        link.unlink(missing_ok=True)


@contextmanager
def _bench(options: dict[str, Any], pack: bytes | None) -> Iterator[Bench]:
    from quant.boards.bench import Bench

    with Bench(board_of(options), pack) as bench:
        yield bench


def _pack(run: Path | None) -> bytes | None:
    from quant.runs.reading import pack_of

    return None if run is None else pack_of(run)


def _slots(bench: Bench, track: str | None) -> Sequence[SlotInfo]:
    """The board's tracks, or the one asked for."""
    if track is not None:
        return [bench.device.slot(track)[1]]
    models = bench.device.models()
    if not models.slots:
        raise InputError(
            f"the board has no models: {models.words}", where=bench.board.name, hint="name a RUN to give it"
        )
    return models.slots


def _held_out(run: Path, frame: int | None = None) -> Observations:
    """A run's held-out frames, or one of them."""
    from quant.dataset import Split
    from quant.runs.reading import read_inputs

    _, dataset = read_inputs(run)
    rows = dataset.rows(Split.HELD_OUT)
    if frame is None:
        return dataset.observations(rows)
    if frame >= len(rows):
        raise InputError(f"no held-out frame {frame}", where=run, expected=f"0 to {len(rows) - 1}")
    return dataset.observations(rows[frame : frame + 1])


def _frame(frames: Observations | None, slot: SlotInfo, n: int) -> Observations:
    """A frame with ``n`` peers: of these frames, or zeros, whose times hardly differ."""
    import numpy as np

    from quant.boards.measure import frames_with
    from quant.policy import Observations

    if n > slot.max_peers:
        raise InputError(f"{n} peers", where=slot.track, expected=f"up to {slot.max_peers}")
    if frames is not None:
        return frames_with(frames, n)
    mask = (np.arange(slot.max_peers) < n)[None]
    zeros = np.zeros((1, slot.max_peers, slot.features), np.float32)
    return Observations(np.zeros((1, slot.ego), np.float32), zeros, mask)


def _read(source: str) -> bytes:
    from quant.files import read_bytes

    return sys.stdin.buffer.read() if source == "-" else read_bytes(Path(source))


def _observation(given: bytes, slot: SlotInfo) -> Observations:
    import numpy as np

    from quant.policy import Observations

    try:
        value = json.loads(given)
        ego = np.array(value["ego"], np.float32).reshape(1, slot.ego)
        peers = np.array(value["peers"], np.float32).reshape(1, -1, slot.features)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"not an observation: {error}",
            where="--observation",
            expected=f'{{"ego": [{slot.ego} numbers], "peers": [up to {slot.max_peers} rows of {slot.features}]}}',
        ) from error
    return Observations(ego, peers, np.ones(peers.shape[:2], np.bool_))


def _host(run: Path, track: str, seen: Observations) -> Any:
    from quant.runners import Int8Runner
    from quant.tracks.storage import load_candidate

    return Int8Runner(load_candidate(run, track)).values(seen)[0]


def _tail(total: Quantiles) -> str:
    return f"{total.p99:.1f} / {total.maximum:.1f}"


def _rows(reply: Any) -> Iterator[tuple[str, str]]:
    for name, value in asdict(reply).items():
        if value not in (None, ""):
            yield name.replace("_", " "), _words(value)


def _words(value: Any) -> str:
    if isinstance(value, IntFlag):
        return ", ".join(flag.name.lower().replace("_", " ") for flag in value if flag.name)
    if isinstance(value, IntEnum):
        return value.name.lower()
    return f"{value:,}" if type(value) is int else str(value)


def _models(slots: Sequence[SlotInfo]) -> Iterator[tuple[str, ...]]:
    for slot in slots:
        for name, part in (("peer_encoder", slot.peer_encoder), ("policy_head", slot.policy_head)):
            arena = "-" if part.arena_used is None else f"{part.arena_used:,} of {part.arena_size:,}"
            yield slot.track, name, f"{part.size:,}", part.sha256[:12], arena, ", ".join(part.operators)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from quant.report.terminal import table

    show(table(columns, rows))
