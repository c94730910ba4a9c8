"""Damaged checkpoints: whatever the damage, the answer is a policy or an `InputError`, soon and in little memory."""

from __future__ import annotations

import io
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quant.errors import InputError
from quant.policy import load_policy
from quant.policy.assembly import probe
from quant.policy.storage import policy_bytes
from tests.policy.crafted import checkpoint, torch_zip, zipped

MODULES = tuple(f"features_extractor.peer_encoder.{index}" for index in range(4))
SB3 = checkpoint(modules=MODULES)


def attempt(folder: Path, content: bytes) -> None:
    """Imports ``content``; a policy that comes out computes finite numbers or overflows, but computes."""
    path = folder / "fuzzed"
    path.write_bytes(content)
    start = time.thread_time()  # not what else the machine does
    try:
        policy = load_policy(path)
    except InputError as error:
        assert str(error)
    else:
        with np.errstate(all="ignore"):
            policy.forward(probe(policy.ego_size, policy.max_peers, policy.peer_size))
    assert time.thread_time() - start < 5


def flips(size: int) -> st.SearchStrategy[list[tuple[int, int]]]:
    return st.lists(st.tuples(st.integers(0, size - 1), st.integers(0, 255)), min_size=1, max_size=8)


def flipped(content: bytes, changes: list[tuple[int, int]]) -> bytes:
    damaged = bytearray(content)
    for position, value in changes:
        damaged[position] = value
    return bytes(damaged)


fuzz = settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@fuzz
@given(changes=flips(len(SB3)))
def test_flipped_bytes(tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    attempt(tmp_path, flipped(SB3, changes))


@fuzz
@given(length=st.integers(0, len(SB3) - 1))
def test_truncation(tmp_path: Path, length: int) -> None:
    attempt(tmp_path, SB3[:length])


def _members() -> tuple[bytes, dict[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(SB3)) as outer, zipfile.ZipFile(io.BytesIO(outer.read("policy.pth"))) as inner:
        root = "archive/data/"
        storages = {n.removeprefix(root): inner.read(n) for n in inner.namelist() if n.startswith(root)}
        return inner.read("archive/data.pkl"), storages


PICKLE, STORAGES = _members()


@fuzz
@given(changes=flips(len(PICKLE)))
def test_flipped_bytes_of_the_pickle_under_a_right_checksum(tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    attempt(tmp_path, checkpoint(pth=torch_zip(flipped(PICKLE, changes), STORAGES)))


@fuzz
@given(program=st.binary(max_size=200))
def test_random_pickles(tmp_path: Path, program: bytes) -> None:
    attempt(tmp_path, checkpoint(pth=torch_zip(b"\x80\x02" + program, STORAGES)))


def _data() -> bytes:
    with zipfile.ZipFile(io.BytesIO(SB3)) as archive:
        return archive.read("data")


DATA = _data()


@fuzz
@given(changes=flips(len(DATA)))
def test_flipped_bytes_of_the_description_under_a_right_checksum(
    tmp_path: Path, changes: list[tuple[int, int]]
) -> None:
    attempt(tmp_path, checkpoint(data=flipped(DATA, changes)))


@fuzz
@given(data=st.data())
def test_flipped_bytes_of_our_own_format(tmp_path: Path, data: st.DataObject) -> None:
    (tmp_path / "valid").write_bytes(SB3)
    content = policy_bytes(load_policy(tmp_path / "valid"))
    attempt(tmp_path, flipped(content, data.draw(flips(len(content)))))


def test_hostile_files_stay_within_200_megabytes(tmp_path: Path) -> None:
    """A memo index of four billion makes Python's own unpickler allocate 32 GB; a zip bomb inflates to 60 MB."""
    memo = b"\x80\x02}r\xff\xff\xff\xff."
    hostile = {
        "memo": checkpoint(pth=torch_zip(memo, {})),
        "bomb": zipped({"data": bytes(60 << 20), "policy.pth": b""}, zipfile.ZIP_DEFLATED),
    }
    program = (
        "import sys, resource\nfrom pathlib import Path\nfrom quant.errors import InputError\n"
        "from quant.policy import load_policy\nbefore = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: load_policy(Path(sys.argv[1]))\nexcept InputError: pass\n"
        "else: sys.exit('imported')\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    for name, content in hostile.items():
        (tmp_path / name).write_bytes(content)
        command = [sys.executable, "-c", program, str(tmp_path / name)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        assert int(done.stdout) < 200 * 1024, name
