"""What an ESP-IDF build folder holds: the files to flash and where, the app's identity, and where models go.

Read from ``flasher_args.json``, the partition table and the app's image, so that no ESP-IDF has to be installed where
boards are flashed.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quant.errors import InputError
from quant.files import read_bytes, read_json

FLASH_FILES = "flasher_args.json"
"""What ESP-IDF leaves in the build folder of a chip."""
MODELS = "models"
"""The partition of the models, and its entry among the flash files."""

_APP_DESCRIPTION = 0x20
"""Of an app's image: after the image header (24 bytes) and the first segment's (8); ``esp_app_desc.h``."""
_APP_MAGIC = 0xABCD5432
_ELF_SHA = 144
"""Of the app's description: ``app_elf_sha256``."""
_PARTITION = struct.Struct("<2sBBII16sI")
"""``gen_esp32part.py``: magic, type, subtype, offset, size, label, flags."""
_PARTITION_MAGIC = b"\xaa\x50"
_FLASH_SIZE = re.compile(r"(\d+)(KB|MB)")


@dataclass(frozen=True)
class FlashFile:
    """One file of the flash and its offset in bytes."""

    offset: int
    path: Path


@dataclass(frozen=True)
class Partition:
    """A range of the flash in bytes."""

    offset: int
    size: int


@dataclass(frozen=True)
class Build:
    """An ESP-IDF build of the app for a chip.

    Attributes:
        folder: of the build, absolute.
        chip: it was built for.
        elf_sha: SHA-256 of its ELF, as the running app reports it; 32 bytes.
        files: everything that is flashed, by offset, the build's own models file included.
        models: the partition the models go to.
        flash_size: in bytes, or None where the build leaves it to the tool.
        settings: esptool's arguments about the flash chip (``--flash_mode dio ...``).
        emulated: the build says of itself that it runs in QEMU (``CONFIG_QUANT_EMULATED``).
    """

    folder: Path
    chip: str
    elf_sha: bytes
    files: tuple[FlashFile, ...]
    models: Partition
    flash_size: int | None
    settings: tuple[str, ...]
    emulated: bool

    def models_file(self) -> bytes:
        """What the build itself puts into the models partition.

        Raises:
            InputError: the file is missing.
        """
        return read_bytes(next(file.path for file in self.files if file.offset == self.models.offset))

    def fits(self, pack: bytes) -> None:
        """Checks a pack against the partition.

        Raises:
            InputError: the pack is larger.
        """
        if len(pack) > self.models.size:
            raise InputError(
                f"the pack has {len(pack):,} bytes, the {MODELS} partition {self.models.size:,}",
                where=self.folder,
                hint="a larger partition in partitions.csv, or fewer tracks in the pack",
            )


def find_build(names: Sequence[str], given: Path | None, app: Path, *, command: str | None = None) -> Path:
    """The build folder: the one given, else the first of ``build_<name>``, ``build/<name>`` and ``build`` with a build.

    Args:
        names: of the board, the most special first.
        given: ``--build-dir``.
        app: the ESP-IDF project.
        command: that makes it, where a plain build would be another board's.

    Raises:
        InputError: there is none; says where it was looked for.
    """
    if given is not None:
        return given
    folders = build_folders(names, app)
    for folder in folders:
        if (folder / FLASH_FILES).is_file():
            return folder
    chip = names[-1] if names else "<chip>"
    plain = f"idf.py -B build/{chip} -D SDKCONFIG=build/{chip}/sdkconfig set-target {chip} build"
    raise InputError(
        "the app has not been built for this board",
        where=app,
        expected=f"{FLASH_FILES} in {' or '.join(str(folder.relative_to(app)) for folder in folders)}",
        hint=f"{command or plain}; or --build-dir",
    )


def build_folders(names: Sequence[str], app: Path) -> list[Path]:
    """Where a board's build is looked for, the most special first."""
    return [folder for name in names for folder in (app / f"build_{name}", app / "build" / name)] + [app / "build"]


def load_build(folder: Path) -> Build:
    """Reads a build folder.

    Raises:
        InputError: a file is missing, or is not what ESP-IDF writes.
    """
    folder = folder.resolve()
    where = folder / FLASH_FILES
    args = read_json(where)
    try:
        files = tuple(
            sorted((FlashFile(int(at, 0), folder / name) for at, name in args["flash_files"].items()), key=_at)
        )
        chip, settings = str(args["extra_esptool_args"]["chip"]), tuple(map(str, args["write_flash_args"]))
        app = folder / args["app"]["file"]
        table = folder / args["partition-table" if "partition-table" in args else "partition_table"]["file"]
        flash_size = _bytes(str(args["flash_settings"]["flash_size"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"not the flash files of an app: {error!r}",
            where=where,
            expected=f"{FLASH_FILES} as idf.py build makes it",
        ) from error
    models = _partition(table, MODELS)
    if not any(file.offset == models.offset for file in files):
        raise InputError(
            f"no file is flashed to the {MODELS} partition", where=where, expected=f"one at {models.offset:#x}"
        )
    return Build(folder, chip, _elf_sha(app), files, models, flash_size, settings, _emulated(folder))


def _at(file: FlashFile) -> int:
    return file.offset


def _bytes(size: str) -> int | None:
    match = _FLASH_SIZE.match(size)
    return None if match is None else int(match[1]) << {"KB": 10, "MB": 20}[match[2]]


def _partition(table: Path, label: str) -> Partition:
    content = read_bytes(table)
    for at in range(0, len(content) - _PARTITION.size + 1, _PARTITION.size):
        magic, _, _, offset, size, name, _ = _PARTITION.unpack_from(content, at)
        if magic != _PARTITION_MAGIC:
            break
        if name.rstrip(b"\0") == label.encode():
            return Partition(offset, size)
    raise InputError(
        f"no {label} partition", where=table, expected="the partition table of esp_idf_app", hint="build the app again"
    )


def _elf_sha(app: Path) -> bytes:
    content = read_bytes(app)
    start = _APP_DESCRIPTION + _ELF_SHA
    if len(content) < start + 32 or struct.unpack_from("<I", content, _APP_DESCRIPTION)[0] != _APP_MAGIC:
        raise InputError("not the image of an ESP-IDF app", where=app, expected="an app description at 0x20")
    return content[start : start + 32]


def _emulated(folder: Path) -> bool:
    try:
        config: Any = json.loads((folder / "config" / "sdkconfig.json").read_bytes())
        return bool(config["QUANT_EMULATED"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
