"""What the virtual board can be told to do wrong, so that tests can see the link notice it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from quant.errors import InputError


class LineFault(StrEnum):
    """What can happen to one byte on the line."""

    DROP = "drop"
    FLIP = "flip"
    DUPLICATE = "duplicate"
    DELAY = "delay"


@dataclass(frozen=True)
class ByteRates:
    """Chances that something happens to a byte, each from 0 to 1 and together at most 1.

    Attributes:
        drop: it is lost.
        flip: one of its bits is inverted.
        duplicate: it comes twice.
        delay: it and all that follows wait.
        delay_seconds: how long.
    """

    drop: float = 0.0
    flip: float = 0.0
    duplicate: float = 0.0
    delay: float = 0.0
    delay_seconds: float = 0.05

    def __post_init__(self) -> None:
        chances = (self.drop, self.flip, self.duplicate, self.delay)
        if not (all(0 <= chance <= 1 for chance in chances) and sum(chances) <= 1 and self.delay_seconds >= 0):
            raise InputError(f"chances {chances} of a fault", expected="each from 0 to 1 and together at most 1")

    @property
    def none(self) -> bool:
        """Whether bytes always pass unharmed."""
        return not (self.drop or self.flip or self.duplicate or self.delay)


@dataclass(frozen=True)
class Faults:
    """Everything the virtual board is told to do wrong.

    Each direction draws from a generator of its own, once a byte, so the same seed and the same bytes give the same
    faults however the bytes are cut into reads.

    Attributes:
        to_board: rates on the way from the host.
        to_host: rates on the way to the host.
        seed: of both directions.
        first_byte: bytes of each direction that pass unharmed first, so that a test can say hello.
        reboot_after: the board restarts once, as if its supply had failed, when it has received that many bytes.
        hang_after: the board hangs once when it has received that many bytes; its watchdog restarts it.
        another_model: the slots' models answer for one another, where their sizes and widths are the same.
        false_elf_hash: HELLO names the hash of another program.
        false_model_hash: MODELS names another hash of the first slot's peer encoder.
    """

    to_board: ByteRates = ByteRates()
    to_host: ByteRates = ByteRates()
    seed: int = 0
    first_byte: int = 0
    reboot_after: int | None = None
    hang_after: int | None = None
    another_model: bool = False
    false_elf_hash: bool = False
    false_model_hash: bool = False


NO_FAULTS = Faults()


@dataclass(frozen=True)
class Stretch:
    """Bytes that travel together, and how long they wait first."""

    data: bytes
    wait: float = 0.0


@dataclass
class FaultyLine:
    """One direction of the line: bytes in, stretches out, with every injected fault counted.

    Attributes:
        rates: of its faults.
        seed: of its faults.
        first_byte: bytes that pass unharmed first.
        counts: faults injected so far.
        passed: bytes that came in so far.
    """

    rates: ByteRates
    seed: tuple[int, int]
    first_byte: int = 0
    counts: Counter[LineFault] = field(default_factory=Counter)
    passed: int = 0

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)

    def carry(self, data: bytes) -> list[Stretch]:
        """What becomes of these bytes."""
        if self.rates.none or not data:
            return [Stretch(data)] if data else []
        # One draw a byte: where it falls decides which fault, and how deep it falls there which bit.
        draws = self._rng.random(len(data))
        draws[: max(0, self.first_byte - self.passed)] = 1.0
        self.passed += len(data)
        stretches: list[Stretch] = []
        current, wait, start = bytearray(), 0.0, 0
        for at in np.flatnonzero(draws < self._total).tolist():
            current += data[start:at]
            start = at + 1
            fault, depth = self._fault(float(draws[at]))
            self.counts[fault] += 1
            if fault is LineFault.DELAY:
                stretches.append(Stretch(bytes(current), wait))
                current, wait = bytearray(), self.rates.delay_seconds
            current += _harmed(data[at], fault, depth)
        current += data[start:]
        stretches.append(Stretch(bytes(current), wait))
        return [stretch for stretch in stretches if stretch.data]

    @property
    def _total(self) -> float:
        return sum(float(getattr(self.rates, fault)) for fault in LineFault)

    def _fault(self, draw: float) -> tuple[LineFault, float]:
        """Which fault a draw below :attr:`_total` means, and how deep it lies in that fault's interval: 0 to 1."""
        low = 0.0
        for fault in LineFault:
            rate = float(getattr(self.rates, fault))
            if draw < low + rate:
                return fault, (draw - low) / rate
            low += rate
        raise AssertionError(f"draw {draw} is beyond every rate")


def _harmed(byte: int, fault: LineFault, depth: float) -> bytes:
    if fault is LineFault.DROP:
        return b""
    if fault is LineFault.FLIP:
        return bytes((byte ^ 1 << min(7, int(depth * 8)),))
    return bytes((byte,)) * (2 if fault is LineFault.DUPLICATE else 1)
