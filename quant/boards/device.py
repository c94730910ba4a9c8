"""A board on a link, spoken to in the library's terms: observations, actions, arrays of codes, microseconds."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.boards.report import STAGE_NAMES, Quantiles
from quant.errors import InputError, LinkError, ProtocolError, did_you_mean
from quant.observation.observations import F32, Observations
from quant.policy.policy import ActionSpace, Discrete
from quant.runners.runner import Decision
from quant.tracks.candidate import Codes, Part
from quant.wire.link import Link
from quant.wire.messages import (
    BenchRequest,
    DecideReply,
    DecideRequest,
    FaultRequest,
    HelloReply,
    HelloRequest,
    InvokeRequest,
    ModelsReply,
    ModelsRequest,
    ResetRequest,
    SlotInfo,
    StatsReply,
    StatsRequest,
    TickQuantiles,
)
from quant.wire.protocol import VERSION, ActionCode, EvidenceCode, FaultKind, PackStatus, PartCode, Stage

PART_CODES: dict[Part, PartCode] = {"peer_encoder": PartCode.PEER_ENCODER, "policy_head": PartCode.POLICY_HEAD}
BOOT_SECONDS = 15.0
"""Longest time from a restart to the first answer; a slow host's emulator needs some of it."""
_ASK_SECONDS = 0.3
"""Between questions to a board that may still be booting."""
_BENCH_SECONDS = 0.1
"""Allowed for one decision of a benchmark: twice the latency limit."""


@dataclass(frozen=True)
class Decisions:
    """N decisions of a board.

    Attributes:
        values: (N, A) float32, logits, or actions within the bounds.
        actions: (N,) uint8, the first largest logit; ``NO_ACTION`` where actions are continuous.
        ticks: (N, 6) uint32, the time of each :class:`~quant.wire.protocol.Stage` by the board's clock.
        ticks_per_second: rate of that clock.
        interfaces: the codes of every interface, if they were asked for.
    """

    values: F32
    actions: NDArray[np.uint8]
    ticks: NDArray[np.uint32]
    ticks_per_second: int
    interfaces: Decision | None = None

    @property
    def decision(self) -> Decision:
        """The codes of every interface; a ValueError if they were not asked for."""
        if self.interfaces is None:
            raise ValueError("the interfaces were not asked for")
        return self.interfaces

    @property
    def microseconds(self) -> NDArray[np.float64]:
        """(N, 6), the time of each stage."""
        return np.asarray(self.ticks * (1e6 / self.ticks_per_second))


class Device:
    """Asks a board. It is made by :meth:`open`, which finds out who is there.

    Args:
        link: to the board; its buffer is used as far as the board says it has one.
        identity: what the board said of itself.
    """

    def __init__(self, link: Link, identity: HelloReply) -> None:
        self.link = link
        self.identity = identity
        self._models: ModelsReply | None = None

    @staticmethod
    def open(link: Link, *, timeout: float = BOOT_SECONDS) -> Device:
        """Asks until the board answers; it may be booting.

        Raises:
            LinkError: it does not answer within ``timeout`` seconds.
            ProtocolError: it speaks another version.
        """
        retries = max(round(timeout / _ASK_SECONDS) - 1, 0)
        device = Device(link, link.request(HelloRequest(), timeout=_ASK_SECONDS, retries=retries))
        device._take(device.identity)
        return device

    def _take(self, hello: HelloReply) -> HelloReply:
        if hello.protocol != VERSION:
            raise ProtocolError(
                f"the board speaks version {hello.protocol} of the protocol",
                where=self.link.name,
                expected=f"version {VERSION}",
                hint="flash the firmware of this version: quant flash",
            )
        self.identity = hello
        self.link.rx_buffer = hello.rx_buffer
        return hello

    def hello(self) -> HelloReply:
        """Who the board is."""
        return self._take(self.link.request(HelloRequest()))

    def models(self) -> ModelsReply:
        """Which models it holds."""
        self._models = self.link.request(ModelsRequest())
        return self._models

    def stats(self) -> StatsReply:
        """Memory, counters, uptime."""
        return self.link.request(StatsRequest())

    def slot(self, track: str) -> tuple[int, SlotInfo]:
        """Where a track is, and what it is; the board is asked once.

        Raises:
            InputError: it does not hold the track, or has no good pack.
        """
        models = self.models() if self._models is None else self._models
        for number, slot in enumerate(models.slots):
            if slot.track == track:
                return number, slot
        if models.status is not PackStatus.OK:
            raise InputError(f"the board has no models: {models.words}", where=self.link.name, hint="quant flash RUN")
        held = ", ".join(slot.track for slot in models.slots)
        near = did_you_mean(track, (slot.track for slot in models.slots))
        raise InputError(f"the board holds no track {track}", where=self.link.name, expected=held, hint=near)

    def decide(self, track: str, observations: Observations, *, interfaces: bool = True) -> Decisions:
        """N observations -> N decisions, many under way at once.

        Args:
            track: which.
            observations: of the track's sizes; the board refuses NaN and infinities in a present peer or the ego.
            interfaces: whether to bring the codes of every interface along: more than half of the bytes.

        Raises:
            InputError: the sizes are not the track's.
            DeviceError: the board refuses.
            LinkError: it does not answer.
        """
        number, slot = self.slot(track)
        self._check(slot, observations)
        requests = (
            DecideRequest(number, ego, peers, mask, interfaces)
            for ego, peers, mask in zip(observations.ego, observations.peers, observations.mask, strict=True)
        )
        replies = list(self.link.stream(requests))
        self._check_replies(slot, replies, observations, interfaces)
        n = len(replies)
        return Decisions(
            values=np.array([reply.values for reply in replies], np.float32).reshape(n, slot.outputs),
            actions=np.array([reply.action for reply in replies], np.uint8),
            ticks=np.array([reply.ticks for reply in replies], np.uint32).reshape(n, len(Stage)),
            ticks_per_second=self.identity.ticks_per_second,
            interfaces=_interfaces(slot, observations.mask.shape[1], replies) if interfaces else None,
        )

    def invoke(self, track: str, part: Part, rows: Codes) -> Codes:
        """Runs one sub-model: (N, K) codes -> (N, M) codes of the same width, many under way at once.

        Raises:
            InputError: the rows are not of the sub-model's size and width.
            DeviceError: the board refuses.
            LinkError: it does not answer.
        """
        number, slot = self.slot(track)
        code = PART_CODES[part]
        info = slot.part(code)
        if rows.ndim != 2 or rows.shape[1] != info.input.size or rows.dtype != slot.dtype:
            raise InputError(
                f"inputs of shape {rows.shape}, {rows.dtype}",
                where=f"{part} of {track}",
                expected=f"shape (N, {info.input.size}), int{slot.bits}",
            )
        lines = rows.astype(slot.dtype, copy=False)
        replies = self.link.stream(InvokeRequest(number, code, row.tobytes()) for row in lines)
        outputs = [reply.output for reply in replies]
        if any(len(output) != info.output.size * slot.dtype.itemsize for output in outputs):
            raise self._wrong(f"an output that has not the {info.output.size} values of {part}")
        return slot.codes(b"".join(outputs), len(rows), info.output.size)

    def bench(self, track: str, observation: Observations, warmup: int, repeats: int) -> dict[str, Quantiles]:
        """Times decisions on one observation by the board's clock.

        Args:
            track: which.
            observation: one.
            warmup: decisions before the timed ones.
            repeats: timed decisions, up to the board's ``max_repeats``.

        Returns:
            Microseconds by the name of the :class:`~quant.wire.protocol.Stage` in lower case.

        Raises:
            InputError: it is not one observation of the track's sizes.
            DeviceError: the board refuses.
            LinkError: it does not answer.
        """
        number, slot = self.slot(track)
        self._check(slot, observation)
        if len(observation) != 1:
            raise InputError(f"{len(observation)} observations to time", where=track, expected="one")
        request = BenchRequest(number, warmup, repeats, observation.ego[0], observation.peers[0], observation.mask[0])
        reply = self.link.request(request, timeout=self.link.timeout + _BENCH_SECONDS * (warmup + repeats))
        return {name: self._microseconds(stage) for name, stage in zip(STAGE_NAMES, reply.stages, strict=True)}

    def reset(self, *, timeout: float = BOOT_SECONDS) -> HelloReply:
        """Restarts the board and waits until it is up again.

        Raises:
            LinkError: it does not come back, or did not restart.
        """
        since = time.monotonic()
        self.link.request(ResetRequest())
        return self.await_restart(since, timeout=timeout)

    def fault(self, kind: FaultKind) -> None:
        """Has something go wrong on purpose; the board says yes first.

        Raises:
            DeviceError: this build does not do such things.
        """
        self.link.request(FaultRequest(kind))

    def await_restart(self, since: float, *, timeout: float = BOOT_SECONDS) -> HelloReply:
        """Waits until the board has restarted and answers.

        A board that is up for longer than since then has not restarted. An emulated one's time may run at any rate: it
        has not restarted if it has received more frames than it was sent from now on.

        Args:
            since: ``time.monotonic()`` before what made it restart.
            timeout: seconds from now.

        Raises:
            LinkError: it does not answer, or has not restarted.
        """
        self._models = None
        until, sent = time.monotonic() + timeout, self.link.counters.frames_out
        while True:
            try:
                hello = self._take(self.link.request(HelloRequest(), timeout=_ASK_SECONDS, retries=0))
                stats = self.link.request(StatsRequest(), timeout=_ASK_SECONDS, retries=1)
            except LinkError:
                if time.monotonic() > until:
                    raise
                self._reopen_if_gone()
                continue
            age, uptime = time.monotonic() - since, stats.uptime_ms / 1000
            emulated = hello.evidence is EvidenceCode.EMULATED
            if stats.frames_good <= self.link.counters.frames_out - sent if emulated else uptime <= age:
                return hello
            if time.monotonic() > until:
                raise LinkError(
                    f"the board has not restarted: it is up for {uptime:.1f} s",
                    where=self.link.name,
                    expected=f"a restart within {age:.1f} s",
                )
            time.sleep(_ASK_SECONDS / 10)

    def _reopen_if_gone(self) -> None:
        """A port behind USB goes away while its board restarts."""
        try:
            self.link.listen(0.01)
            return
        except LinkError:
            pass
        try:
            self.link.reopen()
        except LinkError:
            time.sleep(_ASK_SECONDS)

    def _microseconds(self, ticks: TickQuantiles) -> Quantiles:
        rate = self.identity.ticks_per_second / 1e6
        return Quantiles(ticks.minimum / rate, ticks.median / rate, ticks.p99 / rate, ticks.maximum / rate)

    def _check(self, slot: SlotInfo, observations: Observations) -> None:
        peers, features = observations.peers.shape[1:]
        ego = observations.ego.shape[1]
        if (features, ego) != (slot.features, slot.ego) or peers > slot.max_peers:
            raise InputError(
                f"observations of {peers} peers with {features} features and an ego of {ego}",
                where=slot.track,
                expected=f"up to {slot.max_peers} peers with {slot.features} features and an ego of {slot.ego}",
            )

    def _check_replies(
        self, slot: SlotInfo, replies: list[DecideReply], observations: Observations, interfaces: bool
    ) -> None:
        codes = sum(_interface_sizes(slot, observations.mask.shape[1])) if interfaces else 0
        size = codes * slot.dtype.itemsize
        if any(len(reply.values) != slot.outputs or len(reply.interfaces) != size for reply in replies):
            raise self._wrong(f"a decision that has not {slot.outputs} values and {size} bytes of interfaces")

    def _wrong(self, what: str) -> ProtocolError:
        return ProtocolError(
            f"the board gives {what}",
            where=self.link.name,
            hint="firmware and host are of different builds, or the models were changed meanwhile",
        )


def _interface_sizes(slot: SlotInfo, peers: int) -> tuple[int, ...]:
    """Codes at each interface of a decision."""
    encoder, head = slot.peer_encoder, slot.policy_head
    embedding = slot.embedding
    return (peers * encoder.input.size, peers * embedding, embedding, head.input.size, slot.outputs)


def _interfaces(slot: SlotInfo, peers: int, replies: Iterable[DecideReply]) -> Decision:
    sizes = _interface_sizes(slot, peers)
    rows = slot.codes(b"".join(reply.interfaces for reply in replies), -1, sum(sizes))
    peer_inputs, embeddings, pooled, head_inputs, outputs = np.split(rows, np.cumsum(sizes)[:-1], axis=1)
    n = len(rows)
    return Decision(
        peer_inputs.reshape(n, peers, slot.peer_encoder.input.size),
        embeddings.reshape(n, peers, slot.embedding),
        pooled,
        head_inputs,
        outputs,
    )


class DeviceRunner:
    """A board as a :class:`~quant.runners.Runner`: episodes then run with the board deciding.

    Args:
        device: the board.
        track: which of its tracks decides.
        action_space: the policy's; a board does not tell the bounds of continuous actions.

    Raises:
        InputError: the board does not hold the track, or its actions are not of this space.
    """

    def __init__(self, device: Device, track: str, action_space: ActionSpace) -> None:
        _, slot = device.slot(track)
        discrete = isinstance(action_space, Discrete)
        if (slot.outputs, slot.action == ActionCode.DISCRETE) != (action_space.width, discrete):
            raise InputError(
                f"the board's {slot.outputs} {slot.action.name.lower()} actions",
                where=f"track {track}",
                expected=f"{action_space.width} {'discrete' if discrete else 'continuous'} ones, as the policy has",
            )
        self._device = device
        self._track = track
        self._action_space = action_space

    @property
    def action_space(self) -> ActionSpace:
        """What the values mean."""
        return self._action_space

    def values(self, observations: Observations) -> F32:
        """N observations -> (N, A) float32: logits, or actions within the bounds."""
        return self._device.decide(self._track, observations, interfaces=False).values
