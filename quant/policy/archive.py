"""Zip files of unknown origin, read in memory, with every size bounded before anything is inflated."""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from quant.errors import InputError
from quant.files import read_bytes

MAX_FILE = 64 << 20
"""Bytes of a checkpoint. A policy that fits a microcontroller is a few hundred kilobytes, its optimizer twice that."""
MAX_TOTAL = 64 << 20
"""Declared bytes of all members of one zip together."""
MAX_MEMBERS = 10_000
_END = b"PK\x05\x06"

_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    IndexError,
    KeyError,
)
"""What ``zipfile`` raises on damaged input, apart from struct.error, which its callers turn into BadZipFile."""


@dataclass(frozen=True)
class Archive:
    """The members of a zip, none of them extracted to disk.

    Attributes:
        where: what errors call it.
        members: by name.
    """

    where: str
    members: dict[str, zipfile.ZipInfo]
    _zip: zipfile.ZipFile

    def read(self, name: str) -> bytes:
        """The bytes of one member, at most as many as its header declares.

        Raises:
            InputError: no such member, it is damaged, or it holds more or less than declared.
        """
        if name not in self.members:
            raise InputError(
                f"has no member {name}", where=self.where, expected="a complete file", hint="save or copy it again"
            )
        info = self.members[name]
        try:
            with self._zip.open(info) as stream:
                content = stream.read(info.file_size + 1)
        except _UNREADABLE as error:
            raise damaged(f"{self.where}!{name}", error) from error
        if len(content) != info.file_size:
            raise InputError(
                f"holds {len(content)} bytes where its header declares {info.file_size}",
                where=f"{self.where}!{name}",
                hint="the file is damaged; save or copy it again",
            )
        return content


def read_checkpoint(path: Path) -> bytes:
    """Reads a checkpoint file.

    Raises:
        InputError: it is missing, unreadable, or larger than ``MAX_FILE``.
    """
    if path.is_file() and path.stat().st_size > MAX_FILE:
        raise InputError(
            f"is {path.stat().st_size} bytes",
            where=path,
            expected=f"a policy's checkpoint, at most {MAX_FILE} bytes",
        )
    return read_bytes(path)


def open_archive(content: bytes, where: str) -> Archive:
    """Opens a zip and checks its directory: no duplicates, no encryption, no exotic compression, bounded sizes.

    Raises:
        InputError: it is not a zip, is truncated, or declares more than ``MAX_TOTAL`` bytes.
    """
    # A directory entry of 46 bytes costs about a kilobyte of Python objects: count before parsing.
    if content.count(b"PK\x01\x02") > MAX_MEMBERS:
        raise InputError("has too many members", where=where, expected=f"at most {MAX_MEMBERS}")
    end = content.rfind(_END)
    # zipfile would take the directory of a zip stored inside for that of a truncated one around it.
    if end < 0 or end + 22 + int.from_bytes(content[end + 20 : end + 22], "little") != len(content):
        raise damaged(where, ValueError("it does not end where a zip ends"))
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except _UNREADABLE as error:
        raise damaged(where, error) from error
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        if info.filename in members:
            raise InputError(f"has two members named {info.filename!r}", where=where, expected="each name once")
        # bzip2 and LZMA inflate whole blocks whatever limit the reader sets.
        if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError(
                "is encrypted or compressed in an unusual way",
                where=f"{where}!{info.filename}",
                expected="a stored or deflated member",
            )
        members[info.filename] = info
    total = sum(info.file_size for info in members.values())
    if total > MAX_TOTAL:
        raise InputError(
            f"would unpack to {total} bytes",
            where=where,
            expected=f"at most {MAX_TOTAL} bytes",
            hint="this looks like a zip bomb, or is not a policy's checkpoint",
        )
    return Archive(where, members, archive)


def damaged(where: str, error: Exception) -> InputError:
    """The error for a zip or member that cannot be read."""
    return InputError(
        f"is not a readable zip: {error}" if str(error) else "is not a readable zip",
        where=where,
        expected="a complete zip file",
        hint="it may be truncated or damaged; save or copy it again",
    )
