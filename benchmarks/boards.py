"""Figures of the virtual board and of the wire: ``python -m benchmarks.boards [--baud 921600]``.

The candidate has random weights in the plan's shape (encoder 6-32-32, head 36-64-4) or, with ``--box``, in the field's
(head 38-64-64-1 tanh). An observation has 8 slots and 3 peers on average. Host and board share the machine: each is a
process, and the engine is the ``tflite_micro`` wheel.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from quant.boards.pack import build_pack
from quant.boards.virtual.board import VirtualBoard, VirtualOptions
from quant.boards.virtual.faults import ByteRates, Faults
from quant.boards.virtual.firmware import RX_BUFFER
from quant.boards.virtual.line import BITS_A_BYTE
from quant.runners import Int8Runner
from quant.tracks.candidate import Candidate
from quant.wire.codec import Decoder, encode_frame
from quant.wire.link import Link
from quant.wire.messages import DecideReply, DecideRequest, StatsRequest
from quant.wire.protocol import DEFAULT_BAUD
from quant.wire.streams import PyserialStream
from tests.runners.candidates import box_policy, quantize_policy, random_observations, random_policy


@contextmanager
def linked(pack: bytes, options: VirtualOptions, timeout: float = 2.0) -> Iterator[tuple[VirtualBoard, Link]]:
    with VirtualBoard(pack, options) as board:
        link = Link(PyserialStream(board.port), timeout=timeout, retries=100, rx_buffer=RX_BUFFER)
        try:
            yield board, link
        finally:
            link.close()


def decide_requests(candidate: Candidate, n: int, *, interfaces: bool) -> list[DecideRequest]:
    seen = random_observations(n, seed=2, ego=len(candidate.ego_input.gain))
    rows = zip(seen.ego, seen.peers, seen.mask, strict=True)
    return [DecideRequest(0, ego, peers, mask, interfaces=interfaces) for ego, peers, mask in rows]


def rate(link: Link, requests: Iterable[Any]) -> float:
    """Requests answered a second, many under way."""
    start = time.perf_counter()
    count = sum(1 for _ in link.stream(requests))
    return count / (time.perf_counter() - start)


def one_by_one(link: Link, requests: Iterable[Any]) -> list[float]:
    """Seconds from a request to its reply."""
    seconds = []
    for request in requests:
        start = time.perf_counter()
        link.request(request)
        seconds.append(time.perf_counter() - start)
    return seconds


def share_of_line(link: Link, requests: list[DecideRequest], baud: int) -> tuple[float, float]:
    """Of the line's bytes a second, to the board and to the host."""
    before, start = (link.counters.bytes_out, link.counters.bytes_in), time.perf_counter()
    for _ in link.stream(requests):
        pass
    capacity = (time.perf_counter() - start) * baud / BITS_A_BYTE
    return (link.counters.bytes_out - before[0]) / capacity, (link.counters.bytes_in - before[1]) / capacity


def codec_rates(payload: bytes) -> tuple[float, float]:
    """Bytes on the line that the host encodes and decodes in a second."""
    frames = 5_000
    start = time.perf_counter()
    line = b"".join(encode_frame(2, n, payload) for n in range(frames))
    middle = time.perf_counter()
    assert len(Decoder().feed(line)) == frames
    return len(line) / (middle - start), len(line) / (time.perf_counter() - middle)


def print_speed(candidate: Candidate, pack: bytes, count: int) -> None:
    stats = [StatsRequest()] * count
    decide = decide_requests(candidate, count, interfaces=False)
    with linked(pack, VirtualOptions()) as (_, link):
        one_by_one(link, stats[:200])
        alone = one_by_one(link, stats)
        print(f"{'round trips one by one':38}{1 / np.mean(alone):10,.0f} /s, median {np.median(alone) * 1e6:.0f} us")
        print(f"{'round trips streamed':38}{rate(link, stats):10,.0f} /s")
        print(f"{'decisions one by one':38}{1 / np.mean(one_by_one(link, decide)):10,.0f} /s")
        print(f"{'decisions streamed':38}{rate(link, decide):10,.0f} /s")
        traced = decide_requests(candidate, count, interfaces=True)
        print(f"{'decisions streamed, every interface':38}{rate(link, traced):10,.0f} /s")


def print_share(candidate: Candidate, pack: bytes, baud: int) -> None:
    for interfaces, what in ((False, "bare replies"), (True, "every interface")):
        requests = decide_requests(candidate, 1500, interfaces=interfaces)
        with linked(pack, VirtualOptions(baud=baud)) as (_, link):
            out, back = share_of_line(link, requests, baud)
        print(f"{f'share of {baud} baud, {what}':38}{out:10.1%} to the board, {back:.1%} to the host")


def print_faults(candidate: Candidate, pack: bytes, count: int) -> None:
    rates = ByteRates(drop=3e-5, flip=3e-5, duplicate=3e-5)
    options = VirtualOptions(faults=Faults(to_board=rates, to_host=rates, seed=1))
    requests = decide_requests(candidate, count, interfaces=True)
    with linked(pack, options, timeout=0.2) as (board, link):
        replies = list(link.stream(requests))
        injected = board.fault_counts().total
    wrong = wrong_decisions(candidate, requests, replies)
    print(f"{'faults injected into the line':38}{injected:10,d}, {link.counters.repeats} requests repeated")
    print(f"{'decisions wrong because of one':38}{wrong:10,d} of {count}")


def wrong_decisions(candidate: Candidate, requests: list[DecideRequest], replies: list[DecideReply]) -> int:
    """Replies that differ from the host's decisions at any interface."""
    seen = random_observations(len(requests), seed=2, ego=len(candidate.ego_input.gain))
    host = Int8Runner(candidate).decide(seen)
    parts = (host.peer_inputs, host.embeddings, host.pooled, host.head_inputs, host.outputs)
    rows = (b"".join(part[row].tobytes() for part in parts) for row in range(len(requests)))
    return sum(reply.interfaces != row for reply, row in zip(replies, rows, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--box", action="store_true", help="a 64-64 tanh head and one continuous action")
    parser.add_argument("--baud", type=int, default=DEFAULT_BAUD, help="of the paced line")
    parser.add_argument("--count", type=int, default=5_000, help="requests of each figure")
    arguments = parser.parse_args()
    candidate = quantize_policy(box_policy() if arguments.box else random_policy())
    pack = build_pack((candidate,))
    print_speed(candidate, pack, arguments.count)
    print_share(candidate, pack, arguments.baud)
    encode, decode = codec_rates(bytes(np.random.default_rng(0).integers(0, 256, 500, np.uint8)))
    print(f"{'codec, frames of 500 bytes':38}{encode / 1e6:10.1f} MB/s encoded, {decode / 1e6:.1f} MB/s decoded")
    print_faults(candidate, pack, arguments.count)


if __name__ == "__main__":
    main()
