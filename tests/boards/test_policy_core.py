"""The device's portable core, built for this machine with its sanitizers, and its arithmetic against the library's."""

from __future__ import annotations

import os
import runpy
import shutil
import struct
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from cobs import cobs
from numpy.typing import NDArray

from quant.policy.policy import Box, Pooling
from quant.runners.fixed_point import multiply_by_quantized_multiplier
from quant.runners.flatbuffer import Quantized
from quant.runners.pooling import Pool
from quant.tracks.candidate import Affine, Bits, Codes, code_limits, code_type
from quant.wire import protocol
from quant.wire.messages import residual_bits
from quant.wire.protocol import ErrorCode, Message
from quant.wire.protocol_header import HEADER, header

CORE = Path(__file__).parents[2] / "esp_idf_app" / "components" / "policy_core"
VECTORS = CORE / "test" / "vectors.txt"
POOLINGS: tuple[Pooling, ...] = ("max", "sum", "mean")
WIDTHS: tuple[Bits, ...] = (8, 16)
F32 = NDArray[np.float32]


def _tool(name: str) -> str:
    """A program of this machine or of the environment; without it nothing here means anything."""
    path = os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent)])
    found = shutil.which(name, path=path)
    assert found is not None, f"{name} is missing: install it, or `pip install {name}`"
    return found


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The core and its tests, with AddressSanitizer, UBSan and every warning an error."""
    folder = tmp_path_factory.mktemp("policy_core")
    _run(
        *(_tool("cmake"), "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={_tool('ninja')}", "-S", CORE, "-B", folder),
        *("-DCMAKE_CXX_FLAGS=-O1 -g1", "-DPOLICY_CORE_SANITIZE=ON"),
    )
    _run(_tool("cmake"), "--build", folder)
    return folder


def test_the_header_is_that_of_the_declaration() -> None:
    assert HEADER.read_text() == header()


def test_the_vectors_are_those_of_their_script() -> None:
    assert VECTORS.read_text() == runpy.run_path(str(VECTORS.with_name("make_vectors.py")))["vectors"]()


def test_the_vectors_leave_nothing_out() -> None:
    lines = [line.split() for line in VECTORS.read_text().splitlines() if line.startswith(("out ", "damage "))]
    replies = [cobs.decode(bytes.fromhex(words[1])[1:-1]) for words in lines if words[0] == "out"]
    types = {raw[1] for raw in replies}
    assert types == {message | protocol.REPLY for message in Message} | {protocol.ERROR}
    assert {raw[6] for raw in replies if raw[1] == protocol.ERROR} == set(ErrorCode)
    damage = {words[1] for words in lines if words[0] == "damage"}
    assert damage == {"BAD_CRC", "BAD_FRAME", "TOO_LONG", "BAD_LENGTH"}
    statuses = {raw[6] for raw in replies if raw[1] == Message.MODELS | protocol.REPLY}
    assert statuses == set(protocol.PackStatus)


@pytest.mark.parametrize("name", ["units", "vectors", "server", "pack", "fuzz", "contraction"])
def test_cpp(build: Path, name: str) -> None:
    ctest = _tool("ctest")
    _run(ctest, "--test-dir", build, "--tests-regex", f"^{name}$", "--no-tests=error", "--output-on-failure")


class Cases:
    """What the program ``numeric_cases`` is asked, and what it should answer."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.expected: list[bytes] = []
        self.names: list[str] = []

    def add(self, name: str, question: bytes, answer: bytes) -> None:
        self.names.append(name)
        self.asked.append(question)
        self.expected.append(answer)

    def run(self, build: Path) -> Counter[str]:
        """How many bytes of each kind were equal; all must be."""
        done = subprocess.run(
            [build / "test" / "numeric_cases"], input=b"".join(self.asked), capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        assert len(done.stdout) == sum(map(len, self.expected))
        equal: Counter[str] = Counter()
        start = 0
        for name, expected in zip(self.names, self.expected, strict=True):
            assert done.stdout[start : start + len(expected)] == expected, name
            start += len(expected)
            equal[name.split()[0]] += len(expected)
        return equal


def _any_float(random: np.random.Generator, n: int) -> F32:
    """Finite float32 of every magnitude, subnormal to largest."""
    values = random.integers(0, 1 << 32, n, np.uint32).view(np.float32)
    return np.where(np.isfinite(values), values, np.float32(0)).astype(np.float32)


@dataclass(frozen=True)
class Grid:
    """Codes to quantize to."""

    bits: Bits
    residual: int = 0

    def ask(self, cases: Cases, name: str, x: F32, gain: F32, offset: F32) -> None:
        with np.errstate(over="ignore", under="ignore"):
            q = Affine(gain, offset, self.bits, self.residual).quantize(x[None])
        columns = b"".join(np.ascontiguousarray(values, "<f4").tobytes() for values in (x, gain, offset))
        head = struct.pack("<III", self.bits, residual_bits(self.residual), len(x))
        cases.add(f"quantize {name}", b"q" + head + columns, q.tobytes())


@pytest.mark.parametrize("grid", [Grid(8), Grid(16), Grid(8, 2), Grid(8, 16), Grid(8, 256)], ids=str)
def test_quantize_is_the_hosts(build: Path, grid: Grid) -> None:
    random, n, cases = np.random.default_rng(1), 100_000, Cases()
    low, high = code_limits(grid.bits)
    # Usual: features of order 1 onto all steps. Then halves and their neighbours; then products that overflow.
    x = random.normal(size=n).astype(np.float32)
    gain = np.exp(random.uniform(0, np.log(3 * high), n)).astype(np.float32)
    offset = random.uniform(low, high, n).astype(np.float32)
    grid.ask(cases, "usual", x, gain, offset)
    halves = (random.integers(2 * low, 2 * high, n) + 0.5).astype(np.float32)
    whole = random.integers(low, high + 1, n).astype(np.float32)
    grid.ask(cases, "halves", halves, np.ones(n, np.float32), whole)
    # x * gain + offset is half a step but for the rounding of the product: a fused multiply-add shows here.
    target = (random.integers(low, high + 1, n) + 0.5).astype(np.float32)
    grid.ask(cases, "near-halves", x, gain, target - x * gain)
    grid.ask(cases, "nearly-halves", np.nextafter(halves, np.float32(0)), np.ones(n, np.float32), whole)
    # Halves of a residual's step.
    parts = (random.integers(-300, 300, n) / (2 * max(grid.residual, 1))).astype(np.float32)
    grid.ask(cases, "parts", parts, np.ones(n, np.float32), whole)
    grid.ask(cases, "anything", _any_float(random, n), _any_float(random, n), _any_float(random, n))
    big = np.float32(3e38) * random.choice(np.array([-1, 1], np.float32), n)
    grid.ask(cases, "overflow", big, gain + 2, offset)
    assert cases.run(build)["quantize"] == 7 * n * grid.bits // 8 * (2 if grid.residual else 1)


def test_multiplier_is_the_hosts(build: Path) -> None:
    random, cases = np.random.default_rng(2), Cases()
    for _ in range(1000):
        shift = int(random.integers(-31, 31))
        limit = (1 << 31) - 1 >> max(shift, 0)
        mantissa = int(random.choice(np.array([0, 1 << 30, (1 << 31) - 1, random.integers(1 << 30, 1 << 31)])))
        near_ties = random.integers(-4, 5, 50) * (1 << max(-shift - 1, 0))
        x = np.clip(np.concatenate([random.integers(-limit, limit, 50, endpoint=True), near_ties]), -limit, limit)
        question = b"m" + struct.pack("<Iii", len(x), mantissa, shift) + x.astype("<i4").tobytes()
        cases.add(
            f"multiply {mantissa} {shift}",
            question,
            multiply_by_quantized_multiplier(x, mantissa, shift).astype("<i4").tobytes(),
        )
    assert cases.run(build)["multiply"] == 400_000


def _tensor(random: np.random.Generator, size: int, bits: Bits) -> Quantized:
    scale = np.float32(np.exp(random.uniform(-6, 0)))
    zero_point = int(random.choice(np.array([-128, 127, 0, random.integers(-128, 128)]))) if bits == 8 else 0
    return Quantized((1, size), scale, zero_point, bits)


def _codes(random: np.random.Generator, bits: Bits, *shape: int) -> Codes:
    low, high = code_limits(bits)
    anything, edges = random.integers(low, high + 1, shape), random.choice(np.array([low, high]), shape)
    return np.where(random.random(shape) < 0.1, edges, anything).astype(code_type(bits))


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_is_the_hosts(build: Path, pooling: Pooling, bits: Bits) -> None:
    random, size, cases = np.random.default_rng(3 + POOLINGS.index(pooling)), 50, Cases()
    for peers in range(9):
        for _ in range(250):
            source, target = _tensor(random, size, bits), _tensor(random, size, bits)
            if random.random() < 0.4:  # One scale, and in half of these one zero point as well.
                zero_point = source.zero_point if random.random() < 0.5 else target.zero_point
                target = replace(target, scale=source.scale, zero_point=zero_point)
            pool = Pool.build(pooling, source, target, 8)
            mask = random.random(peers) < random.choice([0.0, 0.5, 1.0])
            embeddings = _codes(random, bits, peers, size)
            # What lies where no peer is must not matter to the device; the library has its neutral code there.
            known = np.where(mask[:, None], embeddings, pool.neutral).astype(embeddings.dtype)
            answer = pool(known[:, None], mask[:, None])[0]
            multipliers = b"".join(struct.pack("<ii", m.mantissa, m.shift) for m in pool.multipliers)
            question = struct.pack("<5I", bits, POOLINGS.index(pooling), peers, size, len(pool.multipliers))
            question += b"".join(struct.pack("<fi", t.scale, t.zero_point) for t in (source, target)) + multipliers
            question += mask.astype(np.uint8).tobytes() + embeddings.tobytes()
            cases.add(f"pool {pooling} of {mask.sum()}", b"p" + question, answer.tobytes())
    assert cases.run(build)["pool"] == 9 * 250 * size * bits // 8


@pytest.mark.parametrize("bits", WIDTHS)
def test_output_is_the_hosts(build: Path, bits: Bits) -> None:
    random, n, cases = np.random.default_rng(6), 32, Cases()
    for round_ in range(3200):
        tensor = _tensor(random, n, bits)
        q = _codes(random, bits, n) if round_ % 2 else random.integers(-3, 3, n).astype(f"i{bits // 8}")
        values = tensor.dequantize(q)
        low = np.where(random.random(n) < 0.1, -np.inf, random.normal(size=n)).astype(np.float32)
        high = np.maximum(low, np.where(random.random(n) < 0.1, np.inf, random.normal(size=n)).astype(np.float32))
        clipped = Box(tuple(low.tolist()), tuple(high.tolist())).clip(values[None])[0]
        question = b"o" + struct.pack("<IIfi", bits, n, tensor.scale, tensor.zero_point)
        question += q.tobytes() + low.astype("<f4").tobytes() + high.astype("<f4").tobytes()
        answer = clipped.astype("<f4").tobytes() + struct.pack("<I", int(np.argmax(values)))
        cases.add("output", question, answer)
    assert cases.run(build)["output"] == 3200 * (4 * n + 4)
