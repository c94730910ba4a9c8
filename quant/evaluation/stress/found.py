"""The frames that a stress test keeps, and their file: to be run again by whoever wants to see."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.errors import InputError
from quant.files import read_bytes, write_bytes
from quant.observation.observations import EGO, F32, PEER_MASK, PEERS, Observations

SPREAD, CORNERS, SWEPT, BEYOND, SEARCHED = "spread", "corners", "swept", "beyond", "searched"
"""Low-discrepancy points over the whole range; free values at their ends; recorded frames with one feature swept;
values just beyond the bounds, which no criterion counts; and what the search came to."""
GROUPS = (SPREAD, CORNERS, SWEPT, BEYOND, SEARCHED)
WORST, MISSED, FALSE = "worst", "missed", "false"
"""Why a frame was kept: float and candidate differ most there, or one acts and the other does not."""
KINDS = (WORST, MISSED, FALSE)
EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, eq=False)
class Found:
    """K frames with what float and a candidate make of them.

    Attributes:
        observations: the frames.
        track: (K,) the candidate's.
        kind: (K,) `WORST`, `MISSED` or `FALSE`.
        group: (K,) of `GROUPS`.
        settled: (K,) whether float stays on its side, where it missed or acted falsely; False elsewhere.
        deviation: (K,) the largest difference, as a share of the range.
        reference, candidate: (K, A) what float and the candidate give: logits, or actions within the bounds.
    """

    observations: Observations
    track: NDArray[np.str_]
    kind: NDArray[np.str_]
    group: NDArray[np.str_]
    settled: NDArray[np.bool_]
    deviation: NDArray[np.float64]
    reference: F32
    candidate: F32

    def __len__(self) -> int:
        return len(self.observations)

    def __getitem__(self, rows: NDArray[np.int64] | NDArray[np.bool_] | slice) -> Found:
        return Found(*(getattr(self, field.name)[rows] for field in fields(Found)))

    def of(self, track: str, kind: str | None = None) -> Found:
        """Those of one track, and of one kind where one is given."""
        chosen = self.track == track
        return self[chosen if kind is None else chosen & (self.kind == kind)]

    @staticmethod
    def concatenate(parts: Sequence[Found]) -> Found:
        """All frames of ``parts`` in order."""
        observations = Observations.concatenate([part.observations for part in parts])
        others = (field.name for field in fields(Found)[1:])
        return Found(observations, *(np.concatenate([getattr(part, name) for part in parts]) for name in others))

    def highest(self, most: int) -> Found:
        """Those that count before those that do not, then by deviation; the earlier of equal ones first."""
        return self[np.lexsort((-self.deviation, ~self.settled))[:most]]

    def highest_by_peers(self, most: int) -> Found:
        """So many for each number of peers, fewest peers first."""
        counts = self.observations.counts
        rows = [np.flatnonzero(counts == count) for count in np.unique(counts)]
        return self[np.concatenate([one[np.argsort(-self.deviation[one], kind="stable")[:most]] for one in rows])]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays of the file: a drive's, with what stands in a `Found` beside them."""
        seen = self.observations
        own = {field.name: getattr(self, field.name) for field in fields(Found)[1:]}
        return {EGO: seen.ego, PEERS: seen.peers, PEER_MASK: seen.mask, **own}

    def content(self) -> bytes:
        """The bytes of the file: equal ones for equal frames."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, array in self.arrays().items():
                member = io.BytesIO()
                np.save(member, np.ascontiguousarray(array), allow_pickle=False)
                info = zipfile.ZipInfo(f"{name}.npy", EPOCH)
                info.create_system, info.external_attr, info.compress_type = 3, 0o644 << 16, zipfile.ZIP_DEFLATED
                archive.writestr(info, member.getvalue())
        return buffer.getvalue()

    def save(self, path: Path) -> None:
        """Writes the file, which ``numpy.load`` opens."""
        write_bytes(path, self.content())


def load_found(path: Path) -> Found:
    """Reads what `Found.save` wrote.

    Raises:
        InputError: it is missing or not such a file.
    """
    content = read_bytes(path)
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        observations = Observations(arrays.pop(EGO), arrays.pop(PEERS), arrays.pop(PEER_MASK))
        found = Found(observations, **arrays)
    except (ValueError, EOFError, OSError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(
            f"not the frames of a stress test: {error}", where=path, hint="make them again: quant stress RUN"
        ) from error
    if any(len(array) != len(found) for array in found.arrays().values()):
        raise InputError("its arrays are not of one length", where=path, hint="make them again: quant stress RUN")
    return found
