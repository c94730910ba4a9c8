"""Build folders as ESP-IDF leaves them, with made-up contents."""

from __future__ import annotations

import json
import struct
from hashlib import sha256
from pathlib import Path

BOOTLOADER = {"esp32": 0x1000, "esp32s3": 0, "esp32c3": 0}
APP, TABLE, MODELS, MODELS_SIZE = 0x10000, 0x8000, 0x190000, 512 * 1024
_CHIP_IDS = {"esp32": 0, "esp32s3": 9, "esp32c3": 5}


def make_build(folder: Path, chip: str = "esp32", *, emulated: bool = False, flash_size: str = "4MB") -> Path:
    """A build folder; its app's ELF hash is that of its folder's name."""
    files = {
        BOOTLOADER[chip]: "bootloader/bootloader.bin",
        APP: "quant.bin",
        TABLE: "partition_table/partition-table.bin",
    }
    files[MODELS] = "models.bin"
    for name in ("bootloader", "partition_table", "config"):
        (folder / name).mkdir(parents=True)
    (folder / files[BOOTLOADER[chip]]).write_bytes(_image(chip, b"\0" * 64))
    (folder / files[APP]).write_bytes(_image(chip, _description(folder.name)))
    (folder / files[TABLE]).write_bytes(_table().ljust(0xC00, b"\xff"))
    (folder / files[MODELS]).write_bytes(b"\xff" * 64)
    (folder / "quant.elf").write_bytes(b"\x7fELF" + folder.name.encode())
    (folder / "config" / "sdkconfig.json").write_text(json.dumps({"IDF_TARGET": chip, "QUANT_EMULATED": emulated}))
    entries = {
        "bootloader": {"offset": hex(BOOTLOADER[chip]), "file": files[BOOTLOADER[chip]], "encrypted": "false"},
        "app": {"offset": hex(APP), "file": files[APP], "encrypted": "false"},
        "partition-table": {"offset": hex(TABLE), "file": files[TABLE], "encrypted": "false"},
        "models": {"offset": hex(MODELS), "file": files[MODELS], "encrypted": "false"},
    }
    settings = {"flash_mode": "dio", "flash_size": flash_size, "flash_freq": "40m"}
    args = {
        "write_flash_args": [word for key, value in settings.items() for word in (f"--{key}", value)],
        "flash_settings": settings,
        "flash_files": {hex(offset): name for offset, name in files.items()},
        **entries,
        "extra_esptool_args": {"after": "hard_reset", "before": "default_reset", "stub": True, "chip": chip},
    }
    (folder / "flasher_args.json").write_text(json.dumps(args))
    return folder


def elf_sha(folder: Path) -> bytes:
    """What the app of a made-up build reports."""
    return sha256(folder.name.encode()).digest()


def _description(name: str) -> bytes:
    head = struct.pack("<II8x32s32s16s16s32s", 0xABCD5432, 0, b"0.1.0", b"quant", b"", b"", b"v5.5.5")
    return (head + sha256(name.encode()).digest()).ljust(256, b"\0")


def _image(chip: str, segment: bytes) -> bytes:
    """An image esptool reads: header, extended header, one segment, checksum, no digest."""
    address = 0x3F400020 if chip == "esp32" else 0x3C000020
    header = struct.pack("<BBBBI", 0xE9, 1, 2, 0x20, 0x40080000)
    extended = struct.pack("<B3xHBHH4xB", 0xEE, _CHIP_IDS[chip], 0, 0, 0xFFFF, 0)
    body = header + extended + struct.pack("<II", address, len(segment)) + segment
    checksum = 0xEF
    for byte in segment:
        checksum ^= byte
    return body + b"\0" * (15 - len(body) % 16) + bytes([checksum])


def _table() -> bytes:
    rows = [
        (1, 2, 0x9000, 0x6000, b"nvs"),
        (0, 0, APP, 0x180000, b"factory"),
        (0x40, 0, MODELS, MODELS_SIZE, b"models"),
    ]
    return b"".join(struct.pack("<2sBBII16sI", b"\xaa\x50", *row, 0) for row in rows)
