"""Writes the firmware's half of the protocol's constants: ``python -m quant.wire.protocol_header [FILE]``."""

from __future__ import annotations

import sys
from enum import IntEnum, IntFlag
from pathlib import Path

from quant.files import write_text
from quant.wire import protocol

APP = Path(__file__).parents[2] / "esp_idf_app"
HEADER = APP / "components" / "policy_core" / "include" / "policy_core" / "protocol.hpp"

_CONSTANTS = (
    ("VERSION", "uint8_t"),
    ("DELIMITER", "uint8_t"),
    ("HEADER_SIZE", "size_t"),
    ("CRC_SIZE", "size_t"),
    ("MAX_PAYLOAD", "size_t"),
    ("REPLY", "uint8_t"),
    ("ERROR", "uint8_t"),
    ("MESSAGES", "uint8_t"),
    ("MAX_SLOTS", "size_t"),
    ("MAX_PEERS", "size_t"),
    ("MAX_FEATURES", "size_t"),
    ("MAX_EGO", "size_t"),
    ("MAX_EMBEDDING", "size_t"),
    ("MAX_OUTPUTS", "size_t"),
    ("MAX_RESIDUAL_BITS", "size_t"),
    ("MAX_REPEATS", "size_t"),
    ("TRACK_SIZE", "size_t"),
    ("NOT_AVAILABLE", "uint32_t"),
    ("PACK_VERSION", "uint16_t"),
    ("PACK_HEADER_SIZE", "size_t"),
    ("PACK_SLOT_SIZE", "size_t"),
    ("PACK_ALIGNMENT", "size_t"),
    ("DECIDE_INTERFACES", "uint8_t"),
    ("NO_ACTION", "uint8_t"),
)
_ENUMS: tuple[type[IntEnum | IntFlag], ...] = (
    protocol.Message,
    protocol.ErrorCode,
    protocol.PackStatus,
    protocol.EvidenceCode,
    protocol.Capability,
    protocol.Stage,
    protocol.FaultKind,
    protocol.PartCode,
    protocol.PoolingCode,
    protocol.ActionCode,
)


def header() -> str:
    """The text of ``protocol.hpp``."""
    lines = [
        "// Generated from quant/wire/protocol.py by `python -m quant.wire.protocol_header`; do not edit.",
        "#pragma once",
        "",
        "#include <cstddef>",
        "#include <cstdint>",
        "",
        "namespace policy_core {",
        "",
        *(f"constexpr {kind} {_constant(name)} = {getattr(protocol, name)}u;" for name, kind in _CONSTANTS),
        f"constexpr uint8_t kPackMagic[{len(protocol.PACK_MAGIC)}] = {{{_bytes(protocol.PACK_MAGIC)}}};",
    ]
    for enum in _ENUMS:
        lines += ["", *_enum(enum)]
    for name, enum, words in (
        ("error_words", protocol.ErrorCode, protocol.ERROR_WORDS),
        ("pack_words", protocol.PackStatus, protocol.PACK_WORDS),
    ):
        lines += ["", *_words(name, enum.__name__, {code.name: text for code, text in words.items()})]
    return "\n".join([*lines, "", "}  // namespace policy_core", ""])


def _constant(name: str) -> str:
    return "k" + "".join(word.capitalize() for word in name.split("_"))


def _bytes(value: bytes) -> str:
    return ", ".join(f"0x{byte:02x}" for byte in value)


def _enum(enum: type[IntEnum | IntFlag]) -> list[str]:
    underlying = "uint32_t" if issubclass(enum, IntFlag) else "uint8_t"
    members = [f"    {_constant(member.name or '')} = {member.value}," for member in enum]
    return [f"enum class {enum.__name__} : {underlying} {{", *members, "};"]


def _words(function: str, enum: str, words: dict[str, str]) -> list[str]:
    cases = [f'        case {enum}::{_constant(name)}:\n            return "{text}";' for name, text in words.items()]
    return [
        f"/// What a code means, for people.\nconstexpr const char *{function}({enum} code) {{",
        "    switch (code) {",
        *cases,
        "    }",
        '    return "unknown";',
        "}",
    ]


def main() -> None:
    """Writes the header to the file named on the command line, or to its place in the app."""
    write_text(Path(sys.argv[1]) if len(sys.argv) > 1 else HEADER, header())


if __name__ == "__main__":
    main()
