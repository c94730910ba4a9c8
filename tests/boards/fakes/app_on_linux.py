#!/usr/bin/env python3
"""Does on standard input and output what the app for ESP-IDF's linux target does, as far as its supervisor sees."""

import hashlib
import os
import signal
import sys
from pathlib import Path


def main() -> None:
    told = {name: os.environ.get(f"QUANT_{name}", "none") for name in ("RESET_REASON", "MODELS", "MAC")}
    if told["MODELS"] != "none":
        told["MODELS"] = hashlib.sha256(Path(told["MODELS"]).read_bytes()).hexdigest()[:16]
    say(f"boot pid {os.getpid()} reason {told['RESET_REASON']} models {told['MODELS']} mac {told['MAC']}.")
    while True:
        data = os.read(0, 4096)
        if not data:
            return
        for word in data.split():
            if word == b"panic":
                os.abort()
            elif word == b"restart":
                sys.exit(0)
            elif word == b"hang":
                signal.alarm(1)
                signal.pause()
            elif word == b"child":
                child = os.fork()
                if child == 0:
                    signal.pause()
                say(f"child {child}")
            else:
                say("echo " + word.hex())


def say(text: str) -> None:
    os.write(1, text.encode() + b"\n")


if __name__ == "__main__":
    main()
