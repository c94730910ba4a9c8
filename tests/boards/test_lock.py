"""A port has one owner among all processes, and none once its owner is dead."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from quant.boards.lock import PortLock, key
from quant.errors import InputError
from tests.patience import PATIENCE

OWNER = """
import sys, time
from pathlib import Path
from quant.boards.lock import PortLock
PortLock(sys.argv[1], folder=Path(sys.argv[2])).acquire()
print("taken", flush=True)
time.sleep(60)
"""


def owner(port: str, folder: Path) -> subprocess.Popen[bytes]:
    """Another process that has the port."""
    process = subprocess.Popen([sys.executable, "-c", OWNER, port, str(folder)], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"taken\n"
    return process


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = owner("/dev/ttyUSB7", tmp_path)
    yield process
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_a_busy_port_says_who_has_it(other: subprocess.Popen[bytes], tmp_path: Path) -> None:
    with pytest.raises(InputError) as info:
        PortLock("/dev/ttyUSB7", folder=tmp_path).acquire()
    assert f"process {other.pid} (-c /dev/ttyUSB7 " in str(info.value)
    assert "since 2" in str(info.value)
    with PortLock("/dev/ttyUSB8", folder=tmp_path):
        pass


def test_an_owner_that_is_killed_frees_its_port(other: subprocess.Popen[bytes], tmp_path: Path) -> None:
    other.send_signal(signal.SIGKILL)
    other.wait()
    with PortLock("/dev/ttyUSB7", folder=tmp_path):
        pass


def test_what_the_owner_starts_does_not_keep_the_port(tmp_path: Path) -> None:
    lock = PortLock("/dev/ttyUSB7", folder=tmp_path)
    lock.acquire()
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], close_fds=False) as child:
        try:
            lock.release()
            with PortLock("/dev/ttyUSB7", folder=tmp_path):
                pass
        finally:
            child.kill()


def test_it_waits_as_long_as_it_is_told(other: subprocess.Popen[bytes], tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(InputError, match=r"within 0\.3 s"):
        PortLock("/dev/ttyUSB7", wait=0.3, folder=tmp_path).acquire()
    assert 0.3 <= time.monotonic() - started < PATIENCE
    killer = subprocess.Popen([sys.executable, "-c", f"import os, time; time.sleep(.3); os.kill({other.pid}, 9)"])
    with PortLock("/dev/ttyUSB7", wait=PATIENCE, folder=tmp_path):
        pass
    assert killer.wait() == 0


def test_names_of_one_port_are_one_port(tmp_path: Path) -> None:
    device, link = tmp_path / "ttyUSB0", tmp_path / "usb-Silicon_Labs-if00"
    device.touch()
    link.symlink_to(device)
    with PortLock(str(link), folder=tmp_path), pytest.raises(InputError, match="in use"):
        PortLock(str(device), folder=tmp_path).acquire()


def test_keys_are_file_names_and_differ() -> None:
    ports = ["/dev/ttyUSB0", "/dev/ttyUSB1", "socket://a:1", "socket://a:12", "rfc2217://a:1", "/dev/ttyUSB0/"]
    keys = [key(port) for port in ports]
    assert len(set(keys)) == 5 and keys[0] == keys[5]
    assert all("/" not in name and len(name) < 64 for name in keys)


def test_a_lock_can_be_had_again_and_released_twice(tmp_path: Path) -> None:
    lock = PortLock("/dev/ttyUSB7", folder=tmp_path)
    for _ in range(2):
        lock.acquire()
        lock.release()
    lock.release()


def test_a_lock_file_that_says_nothing_decides_nothing(tmp_path: Path) -> None:
    lock = PortLock("/dev/ttyUSB7", folder=tmp_path)
    lock.path.write_text('{"pid": 1, "command": "gone", "since": "long ago"}')
    with lock:
        lock.path.write_text("not JSON")
        with pytest.raises(InputError, match="in use by another process"):
            PortLock("/dev/ttyUSB7", folder=tmp_path).acquire()


def test_a_link_in_place_of_the_lock_file_is_not_followed(tmp_path: Path) -> None:
    lock = PortLock("/dev/ttyUSB7", folder=tmp_path)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    lock.path.symlink_to(victim)
    with pytest.raises(InputError, match="cannot be opened"):
        lock.acquire()
    assert victim.read_text() == "precious"


def test_where_there_are_no_locks_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(InputError, match="cannot be locked: No locks available"):
        PortLock("/dev/ttyUSB7", folder=tmp_path).acquire()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
