"""A board behind a link decides as the host does; what it says of itself is what the library says of it."""

from __future__ import annotations

import time
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from quant.boards.device import Device, DeviceRunner
from quant.boards.report import Quantiles
from quant.errors import DeviceError, InputError, LinkError, ProtocolError
from quant.observation.observations import Observations
from quant.policy.policy import Box, Discrete, Pooling
from quant.runners import Decision, Int8Runner, Runner
from quant.tracks.candidate import PARTS, Candidate
from quant.wire import messages as m
from quant.wire.codec import Frame
from quant.wire.link import Link
from quant.wire.protocol import MAX_REPEATS, NO_ACTION, VERSION, ErrorCode, FaultKind, Message, Stage
from quant.worlds.rollout import rollout
from quant.worlds.scenarios import NOMINAL
from quant.worlds.world import load_world
from tests.boards.stub import TICKS_PER_SECOND, StubBoard, hello
from tests.runners.candidates import box_policy, quantize_policy, random_observations, random_policy

MAX = quantize_policy(random_policy())
BOX = replace(quantize_policy(box_policy()), track="box")


def opened(stub: StubBoard, **options: Any) -> Device:
    return Device.open(Link(stub, timeout=0.05, **options))


@pytest.fixture
def device() -> Device:
    return opened(StubBoard((MAX, BOX)))


def same(found: Decision | None, expected: Decision) -> None:
    assert found is not None
    for item in fields(Decision):
        np.testing.assert_array_equal(getattr(found, item.name), getattr(expected, item.name))


@pytest.mark.parametrize(("candidate", "ego"), [(MAX, 4), (BOX, 6)])
def test_decisions_are_the_hosts(device: Device, candidate: Candidate, ego: int) -> None:
    seen, runner = random_observations(70, ego=ego), Int8Runner(candidate)
    seen.peers[~seen.mask] = np.nan  # absent peers are never read
    decided = device.decide(candidate.track, seen)
    np.testing.assert_array_equal(decided.values, runner.values(seen))
    same(decided.decision, runner.decide(seen))
    if isinstance(candidate.action_space, Discrete):
        np.testing.assert_array_equal(decided.actions, candidate.action_space.decide(decided.values))
    else:
        assert (decided.actions == NO_ACTION).all()
    assert decided.ticks.dtype == np.uint32 and decided.ticks.tolist() == [[1, 2, 3, 4, 5, 15]] * 70
    np.testing.assert_allclose(decided.microseconds[0], np.array([1, 2, 3, 4, 5, 15]) * 1e6 / TICKS_PER_SECOND)


@pytest.mark.parametrize("pooling", ["max", "sum", "mean"])
def test_fewer_slots_than_the_models_take(pooling: Pooling) -> None:
    candidate = quantize_policy(random_policy(pooling=pooling), share_scale=False)
    device, seen = opened(StubBoard((candidate,))), random_observations(10)
    few = Observations(seen.ego, seen.peers[:, :3], seen.mask[:, :3])
    same(device.decide("test", few).decision, Int8Runner(candidate).decide(few))


def test_no_observations_and_no_peers(device: Device) -> None:
    seen = random_observations(3)
    none = device.decide("test", seen[:0])
    assert none.values.shape == (0, 4) and none.ticks.shape == (0, 6) and none.decision.embeddings.shape == (0, 8, 32)
    lonely = Observations(seen.ego, seen.peers, np.zeros_like(seen.mask))
    same(device.decide("test", lonely).decision, Int8Runner(MAX).decide(lonely))
    assert device.invoke("test", "policy_head", np.zeros((0, 36), np.int8)).shape == (0, 4)


def test_the_interfaces_come_only_when_asked_for(device: Device) -> None:
    before = device.link.counters.bytes_in
    decided = device.decide("test", random_observations(20), interfaces=False)
    assert decided.interfaces is None and device.link.counters.bytes_in - before < 20 * 100
    with pytest.raises(ValueError, match="not asked for"):
        _ = decided.decision


@pytest.mark.parametrize("part", PARTS)
def test_sub_models_run_by_themselves(device: Device, part: Any) -> None:
    engine = Int8Runner(MAX).engine
    rows = np.random.default_rng(0).integers(-128, 128, (200, engine.model(part).input.size), np.int8)
    np.testing.assert_array_equal(device.invoke("test", part, rows), engine.invoke(part, rows))


def test_wrong_sizes_are_refused_before_anything_is_sent(device: Device) -> None:
    device.models()
    sent = device.link.counters.frames_out
    seen = random_observations(2)
    wide = Observations(seen.ego, np.zeros((2, 9, 6), np.float32), np.zeros((2, 9), np.bool_))
    for wrong in (random_observations(2, ego=5), wide, Observations(seen.ego, seen.peers[:, :, :5], seen.mask)):
        with pytest.raises(InputError, match="observations of"):
            device.decide("test", wrong)
    with pytest.raises(InputError, match="2 observations to time"):
        device.bench("test", seen, 1, 1)
    for rows in (np.zeros((2, 7), np.int8), np.zeros(6, np.int8), np.zeros((2, 6), np.int16)):
        with pytest.raises(InputError, match="inputs of shape"):
            device.invoke("test", "peer_encoder", rows)
    with pytest.raises(InputError, match=r"no track qat[\s\S]*test, box"):
        device.decide("qat", seen)
    assert device.link.counters.frames_out == sent
    with pytest.raises(InputError, match="no models: stub"):
        opened(StubBoard()).decide("test", seen)


def test_benchmarks_are_in_microseconds(device: Device) -> None:
    times = device.bench("test", random_observations(1), 10, 100)
    assert list(times) == [stage.name.lower() for stage in Stage]
    assert times["quantize"] == Quantiles(5.0, 10.0, 15.0, 20.0) and times["total"] == Quantiles(
        30.0, 60.0, 90.0, 120.0
    )


def test_a_benchmark_is_waited_for() -> None:
    class Slow(StubBoard):
        delay = 0.0

        def read(self, timeout: float) -> bytes:
            if self.requests[-1].type == Message.BENCH and self.delay < 0.3:
                self.delay += 0.05
                time.sleep(0.05)
                return b""
            return super().read(timeout)

    slow = Slow((MAX,))
    device = opened(slow)
    device.bench("test", random_observations(1), 0, MAX_REPEATS)
    assert device.link.counters.silences == 0 and slow.delay >= 0.3


def test_open_asks_until_the_board_is_there_and_learns_its_buffer() -> None:
    stub = StubBoard((MAX,), silent=2, rx_buffer=4321)
    device = opened(stub)
    assert device.identity.chip == "stub" and device.link.rx_buffer == 4321
    assert device.hello() == device.identity
    with pytest.raises(LinkError, match="HELLO"):
        Device.open(Link(StubBoard(silent=1000)), timeout=0.3)


def test_another_protocol_is_refused() -> None:
    class Newer(StubBoard):
        def _reply(self, frame: Frame) -> bytes:
            return hello(protocol=VERSION + 1).encode()

    with pytest.raises(ProtocolError, match=f"version {VERSION + 1}"):
        opened(Newer())


def test_a_refusal_has_its_code() -> None:
    device = opened(StubBoard((MAX,), refuse=lambda f: ErrorCode.BAD_INPUT if f.type == Message.DECIDE else None))
    with pytest.raises(DeviceError) as caught:
        device.decide("test", random_observations(3))
    assert caught.value.code == ErrorCode.BAD_INPUT
    device.fault(FaultKind.CORRUPT_REPLY)
    assert device.link.request(m.StatsRequest()).uptime_ms >= 0


def test_reset_waits_for_another_boot() -> None:
    stub = StubBoard((MAX,))
    device = opened(stub)
    device.models()
    stub.run_for(3600)
    before = device.stats().uptime_ms
    assert device.reset() == device.identity
    assert device.stats().uptime_ms < before
    # Other models may have been flashed meanwhile.
    device.slot("test")
    device.slot("test")
    assert [frame.type for frame in stub.requests].count(Message.MODELS) == 2

    class Stubborn(StubBoard):
        def restart(self) -> None:
            pass

    stubborn = opened(Stubborn((MAX,)))
    time.sleep(0.05)
    with pytest.raises(LinkError, match="has not restarted"):
        stubborn.reset(timeout=0.2)


def test_a_port_that_goes_away_with_its_board_is_opened_again() -> None:
    class Usb(StubBoard):
        gone = 0

        def restart(self) -> None:
            super().restart()
            self.gone = 3

        def read(self, timeout: float) -> bytes:
            if self.gone and not self._out:
                raise LinkError("the port is gone", where=self.name)
            return super().read(timeout)

        def write(self, data: bytes) -> None:
            if self.gone:
                raise LinkError("the port is gone", where=self.name)
            super().write(data)

        def reopen(self) -> None:
            self.gone -= 1
            if self.gone:
                raise LinkError("there is no such port", where=self.name)

    stub = Usb((MAX,))
    device = opened(stub)
    time.sleep(0.02)
    device.reset()
    assert stub.gone == 0


def test_replies_of_other_sizes_are_refused() -> None:
    class Confused(StubBoard):
        def _reply(self, frame: Frame) -> bytes:
            return super()._reply(frame) + (b"\0" if frame.type in {Message.DECIDE, Message.INVOKE} else b"")

    device = opened(Confused((MAX,)))
    with pytest.raises(ProtocolError, match="decision"):
        device.decide("test", random_observations(2))
    with pytest.raises(ProtocolError, match="output"):
        device.invoke("test", "policy_head", np.zeros((2, 36), np.int8))


def test_a_board_drives() -> None:
    world = load_world("convoy")
    candidate = quantize_policy(random_policy(seed=3))
    runner: Runner = DeviceRunner(opened(StubBoard((candidate,))), "test", candidate.action_space)
    host = Int8Runner(candidate)
    scenarios = world.draw("test", 1, {NOMINAL: 3})
    episodes = [
        rollout(world, scenarios, lambda seen, who=who: who.action_space.decide(who.values(seen)))  # type: ignore[misc]
        for who in (runner, host)
    ]
    np.testing.assert_array_equal(episodes[0].steps, episodes[1].steps)
    np.testing.assert_array_equal(episodes[0].reward, episodes[1].reward)
    for space in (Discrete(5), Box((0.0,) * 4, (1.0,) * 4)):
        with pytest.raises(InputError, match="4 discrete actions"):
            DeviceRunner(opened(StubBoard((candidate,))), "test", space)
