"""Rich renderables as plain text, for files and pipes."""

from __future__ import annotations

import io

from rich.console import Console, RenderableType

WIDTH = 110


def as_text(renderable: RenderableType, width: int = WIDTH) -> str:
    """What a terminal of that width without colour would show, without trailing spaces."""
    stream = io.StringIO()
    # No environment: COLUMNS or FORCE_COLOR must not change a file.
    console = Console(
        file=stream, width=width, color_system=None, force_terminal=False, legacy_windows=False, _environ={}
    )
    console.print(renderable, crop=False)
    return "".join(f"{line.rstrip()}\n" for line in stream.getvalue().splitlines())
