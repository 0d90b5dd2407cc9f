"""Panels as part of a page, made smaller where they are large."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ignite_salak.report.run import Run

__all__ = ["Panel", "embed", "find_panels"]

_KINDS = {
    "validation": "Validation patches",
    "unlabeled": "Unlabelled patches and their pseudo-labels",
}
_LARGEST = 300_000  # bytes; a longer file is embedded as JPEG
_WIDEST = 1600  # pixels
_QUALITY = 88


@dataclass(frozen=True)
class Panel:
    """A panel on a page.

    Attributes:
        title: what it shows, and when.
        uri: ``data:`` URI, or None where the file cannot be read.
        note: how it differs from the file, or why it is missing.
    """

    title: str
    uri: str | None
    note: str


def find_panels(run: Run, *, last_only: bool = False) -> tuple[Panel, ...]:
    """Returns the panels of the last and of the best evaluation, as far as there are some."""
    panels = []
    for kind, title in _KINDS.items():
        files = run.panels.get(kind, {})
        if not files:
            continue
        which = {max(files): "last"}
        if not last_only and run.best in files:
            which[run.best] = "best and last" if run.best in which else "best"
        for iteration, word in sorted(which.items()):
            name = f"{title}, {word} evaluation (iteration {iteration:,})"
            panels.append(embed(files[iteration], name))
    return tuple(panels)


def embed(path: Path, title: str) -> Panel:
    """Reads a PNG file into a panel; long or wide ones become a JPEG, which the note says."""
    where = f"{path.parent.name}/{path.name}"
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            if len(content) <= _LARGEST and image.width <= _WIDEST:
                image.verify()
                return Panel(title, _uri(content, "png"), f"File: {where}")
            small = image.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        return Panel(title, None, f"{where} cannot be read: {error}")
    size = small.size
    if small.width > _WIDEST:
        height = round(small.height * _WIDEST / small.width)
        small = small.resize((_WIDEST, max(1, height)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=_QUALITY)
    smaller = "" if small.size == size else f", at {small.width} of {size[0]} pixels' width"
    note = f"Reduced to JPEG quality {_QUALITY}{smaller}; the original is {where}"
    return Panel(title, _uri(buffer.getvalue(), "jpeg"), note)


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
