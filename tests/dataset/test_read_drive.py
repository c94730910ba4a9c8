"""What a recorded drive has to be, and that everything else is refused with the file and the array named."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from quant.dataset import read_drive
from quant.errors import InputError
from quant.files import sha256
from tests.tracks import strategies

POLICY = strategies.policy(ego=5, peer=6, max_peers=8)
SEEN = strategies.frames(250, slots=4, most=4)

in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)


def refused(path: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        read_drive(path, POLICY)
    assert str(path) in str(caught.value.where)
    assert caught.value.exit_code == 2
    return caught.value


def test_a_drive_is_padded_to_the_policys_slots_and_cut_into_blocks(tmp_path: Path) -> None:
    path = strategies.write_drive(tmp_path / "a.npz", SEEN, unknown=np.array(["ignored"]))
    drive = read_drive(path, POLICY)
    assert (drive.name, drive.kind, drive.sha256) == ("a.npz", "drive", sha256(path.read_bytes()))
    seen = drive.observations
    assert (seen.ego.shape, seen.peers.shape, seen.mask.shape) == ((250, 5), (250, 8, 6), (250, 8))
    assert [array.dtype.name for array in (seen.ego, seen.peers, seen.mask)] == ["float32", "float32", "bool"]
    np.testing.assert_array_equal(seen.ego, SEEN.ego)
    np.testing.assert_array_equal(seen.mask[:, :4], SEEN.mask)
    np.testing.assert_array_equal(seen.peers[seen.mask], SEEN.peers[SEEN.mask])
    assert not seen.mask[:, 4:].any()
    assert not seen.peers[~seen.mask].any()
    assert np.bincount(drive.block).tolist() == [100, 100, 50]


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32, np.uint8, np.bool_])
def test_any_kind_of_number_is_read(tmp_path: Path, dtype: type) -> None:
    ego: NDArray[Any] = np.ones((10, 5)).astype(dtype)
    path = strategies.write_drive(tmp_path / "a.npz", SEEN[:10], ego=ego, peer_mask=SEEN.mask[:10].astype(dtype))
    seen = read_drive(path, POLICY).observations
    assert seen.ego.dtype == np.float32 and (seen.ego == 1).all()
    np.testing.assert_array_equal(seen.mask[:, :4], SEEN.mask[:10])


def test_what_stands_in_an_absent_peers_slot_is_never_read(tmp_path: Path) -> None:
    peers = SEEN.peers.copy()
    peers[~SEEN.mask] = np.nan
    seen = read_drive(strategies.write_drive(tmp_path / "a.npz", SEEN, peers=peers), POLICY).observations
    clean = read_drive(strategies.write_drive(tmp_path / "b.npz", SEEN), POLICY).observations
    np.testing.assert_array_equal(seen.peers, clean.peers)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
@pytest.mark.parametrize("key", ["ego", "peers"])
def test_a_number_that_is_not_finite_is_named_with_its_place(tmp_path: Path, key: str, bad: float) -> None:
    array = np.array(getattr(SEEN, key), np.float64)
    at = (7, 3) if key == "ego" else (int(np.flatnonzero(SEEN.mask[:, 2])[0]), 2, 1)
    array[at] = bad
    error = refused(strategies.write_drive(tmp_path / "a.npz", SEEN, **{key: array}))
    assert str(error.where).endswith(f":{key}") and str(at) in error.what


@pytest.mark.parametrize("key", ["ego", "peers", "peer_mask"])
def test_a_missing_array_is_named(tmp_path: Path, key: str) -> None:
    arrays: dict[str, Any] = {"ego": SEEN.ego, "peers": SEEN.peers, "peer_mask": SEEN.mask}
    np.savez(tmp_path / "a.npz", **{name: array for name, array in arrays.items() if name != key})
    assert refused(tmp_path / "a.npz").what == f"the drive lacks {key}"


def test_times_are_optional(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", ego=SEEN.ego, peers=SEEN.peers, peer_mask=SEEN.mask)
    assert len(read_drive(tmp_path / "a.npz", POLICY).observations) == 250


@given(rows=st.integers(1, 249), step=st.sampled_from([0, -1, -100, np.nan]))
@in_one_folder
def test_time_has_to_increase_at_every_frame(tmp_path: Path, rows: int, step: float) -> None:
    times = np.arange(250, dtype=np.float64)
    times[rows] = times[rows - 1] + step
    error = refused(strategies.write_drive(tmp_path / "a.npz", SEEN, t_ms=times))
    assert error.what.startswith(f"t_ms: time does not increase at frame {rows},")
    assert "--allow time-order" in str(error.hint)


@pytest.mark.parametrize("times", [np.arange(249), np.arange(250)[:, None], np.array(5), np.array(["0"] * 250)])
def test_times_are_one_number_a_frame(tmp_path: Path, times: NDArray[Any]) -> None:
    assert str(refused(strategies.write_drive(tmp_path / "a.npz", SEEN, t_ms=times)).where).endswith(":t_ms")


def test_a_late_time_is_compared_exactly(tmp_path: Path) -> None:
    """float32 milliseconds repeat after 4.7 hours."""
    times = np.arange(250) + (1 << 40)
    assert len(read_drive(strategies.write_drive(tmp_path / "a.npz", SEEN, t_ms=times), POLICY).observations) == 250


@pytest.mark.parametrize("value", [0.5, -1.0, 2.0, np.nan, 255])
def test_a_mask_is_zeros_and_ones(tmp_path: Path, value: float) -> None:
    mask = SEEN.mask.astype(np.float32)
    mask[17, 1] = value
    error = refused(strategies.write_drive(tmp_path / "a.npz", SEEN, peer_mask=mask))
    assert str(error.where).endswith(":peer_mask")


SHAPES = st.lists(st.integers(0, 9), max_size=4).map(tuple)
FIT = {"ego": (6, 5), "peers": (6, 4, 6), "peer_mask": (6, 4)}


@given(key=st.sampled_from(sorted(FIT)), shape=SHAPES)
@in_one_folder
def test_an_array_of_another_shape_is_refused(tmp_path: Path, key: str, shape: tuple[int, ...]) -> None:
    if shape == FIT[key]:
        return
    arrays = {name: np.zeros(shape if name == key else own) for name, own in FIT.items()}
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    refused(tmp_path / "a.npz")


@given(frames=st.integers(1, 5), slots=st.integers(0, 8), data=st.data())
@in_one_folder
def test_whatever_fits_is_read_as_it_is(tmp_path: Path, frames: int, slots: int, data: st.DataObject) -> None:
    numbers = st.floats(-10, 10, width=32)
    ego = data.draw(hnp.arrays(np.float32, (frames, 5), elements=numbers))
    peers = data.draw(hnp.arrays(np.float32, (frames, slots, 6), elements=numbers))
    mask = data.draw(hnp.arrays(np.bool_, (frames, slots)))
    np.savez(tmp_path / "a.npz", ego=ego, peers=peers, peer_mask=mask)
    seen = read_drive(tmp_path / "a.npz", POLICY).observations
    np.testing.assert_array_equal(seen.ego, ego)
    np.testing.assert_array_equal(seen.peers[seen.mask], peers[mask])
    np.testing.assert_array_equal(seen.counts, mask.sum(axis=1))


@pytest.mark.parametrize(
    ("key", "shape", "named"),
    [("ego", (250, 6), "(N, 5)"), ("peers", (250, 4, 7), "(250, at most 8, 6)"), ("peers", (250, 9, 6), "at most 8")],
)
def test_a_drive_of_another_policy_says_what_was_expected(
    tmp_path: Path, key: str, shape: tuple[int, ...], named: str
) -> None:
    mask = np.zeros((250, shape[1] if key == "peers" else 4))
    error = refused(strategies.write_drive(tmp_path / "a.npz", SEEN, **{key: np.zeros(shape)}, peer_mask=mask))
    assert named in str(error.expected)


def test_a_drive_without_frames_is_refused(tmp_path: Path) -> None:
    assert "no frames" in refused(strategies.write_drive(tmp_path / "a.npz", SEEN[:0])).what


@pytest.mark.parametrize("array", [np.array(["a"] * 5), np.zeros((3, 5), complex), np.zeros((3, 5), "M8[ms]")])
def test_what_is_not_a_number_is_refused(tmp_path: Path, array: NDArray[Any]) -> None:
    assert "not numbers" in refused(strategies.write_drive(tmp_path / "a.npz", SEEN, ego=array)).what


class Explosive:
    fuse: Path

    def __init__(self, fuse: Path) -> None:
        self.fuse = fuse

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Path]]:
        return Path.touch, (self.fuse,)


def test_a_pickled_object_is_refused_and_not_executed(tmp_path: Path) -> None:
    fuse = tmp_path / "fuse"
    refused(strategies.write_drive(tmp_path / "a.npz", SEEN, ego=np.array([Explosive(fuse)], object)))
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Explosive(fuse)))
    refused(tmp_path / "b.npz")
    assert not fuse.exists()


def test_a_single_array_is_not_a_drive(tmp_path: Path) -> None:
    with (tmp_path / "a.npz").open("wb") as stream:
        np.save(stream, SEEN.ego)
    assert ".npz" in refused(tmp_path / "a.npz").what


@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip at all" * 100])
def test_a_file_that_is_no_zip_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    refused(tmp_path / "a.npz")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "a.npz").what
    (tmp_path / "b.npz").mkdir()
    refused(tmp_path / "b.npz")


def test_an_archive_that_unpacks_to_more_than_a_drive_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quant.dataset.recording.MAX_BYTES", 1 << 20)
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ego.npy", bytes((1 << 20) + 1))
    assert "unpacks to" in refused(tmp_path / "a.npz").what


def whole(compressed: bool) -> bytes:
    stream = io.BytesIO()
    save = np.savez_compressed if compressed else np.savez
    save(stream, ego=SEEN.ego[:20], peers=SEEN.peers[:20], peer_mask=SEEN.mask[:20])
    return stream.getvalue()


@given(compressed=st.booleans(), data=st.data())
@in_one_folder
def test_a_truncated_drive_is_refused(tmp_path: Path, compressed: bool, data: st.DataObject) -> None:
    content = whole(compressed)
    (tmp_path / "a.npz").write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    refused(tmp_path / "a.npz")


@given(compressed=st.booleans(), data=st.data())
@settings(in_one_folder, max_examples=300)
def test_a_damaged_drive_is_refused_or_read_but_never_crashes(
    tmp_path: Path, compressed: bool, data: st.DataObject
) -> None:
    content = bytearray(whole(compressed))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "a.npz").write_bytes(content)
    try:
        seen = read_drive(tmp_path / "a.npz", POLICY).observations
    except InputError as error:
        assert str(tmp_path / "a.npz") in str(error.where)
    else:
        assert np.isfinite(seen.ego).all() and np.isfinite(seen.peers).all()
