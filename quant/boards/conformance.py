"""Whether a board decides as the host does: byte by byte at every interface, and by which stage they part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.observation.observations import F32
from quant.runners import Decision

STAGES = ("quantize peers", "encoder", "pool", "quantize ego", "head", "output")
"""What makes the interfaces of a decision, in the order in which a fault of one reaches the next."""

Bits = NDArray[np.bool_]


@dataclass(frozen=True)
class Conformance:
    """Decisions of a board against the host's.

    Attributes:
        compared: decisions.
        differing: those that differ anywhere.
        first: of the differing, by the stage that differs first; stages without any are left out.
        example: index of the first decision that differs; None without one.
    """

    compared: int
    differing: int
    first: Mapping[str, int]
    example: int | None

    def __str__(self) -> str:
        if not self.differing:
            return f"{self.compared} decisions, equal in every byte"
        stages = ", ".join(f"{count} by {stage}" for stage, count in self.first.items())
        return f"{self.differing} of {self.compared} decisions differ: {stages}; the first is number {self.example}"


def compare(board: Decision, board_values: F32, host: Decision, host_values: F32) -> Conformance:
    """Compares N decisions.

    Args:
        board, host: the int8 of every interface.
        board_values, host_values: (N, A) float32, logits or clipped actions; compared bit by bit.
    """
    size = len(host.pooled)
    differs = np.stack(
        [
            _rows(board.peer_inputs != host.peer_inputs, size),
            _rows(board.embeddings != host.embeddings, size),
            _rows(board.pooled != host.pooled, size),
            _rows(board.head_inputs != host.head_inputs, size),
            _rows(board.outputs != host.outputs, size),
            _rows(board_values.view(np.uint32) != host_values.view(np.uint32), size),
        ]
    )
    wrong = np.flatnonzero(differs.any(axis=0))
    first = differs.argmax(axis=0)[wrong]
    counts = {stage: int((first == index).sum()) for index, stage in enumerate(STAGES)}
    return Conformance(
        size,
        len(wrong),
        {stage: count for stage, count in counts.items() if count},
        int(wrong[0]) if len(wrong) else None,
    )


def _rows(differs: NDArray[np.bool_], size: int) -> Bits:
    """(N, ...) -> (N,), whether anything of a row differs."""
    return np.asarray(differs.reshape(size, -1).any(axis=1) if size else np.zeros(0, np.bool_))
