"""What holds for every track of the registry, whichever it is."""

from __future__ import annotations

from pkgutil import resolve_name

import pytest

from quant.tracks.registry import TRACKS, Track
from quant.wire.protocol import TRACK_SIZE


@pytest.mark.parametrize("way", TRACKS.values(), ids=lambda way: way.name)
def test_what_makes_and_refuses_is_there_and_the_name_fits_a_pack(way: Track) -> None:
    assert callable(resolve_name(way.maker))
    assert way.refusal is None or callable(resolve_name(way.refusal))
    assert len(way.name.encode()) < TRACK_SIZE
