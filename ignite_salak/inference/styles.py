"""A legend for QGIS: the class names beside the colours of a class raster."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from ignite_salak.classes import ClassMap
from ignite_salak.files import write_whole

__all__ = ["write_qgis_style"]

_DOCTYPE = b"<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"


def write_qgis_style(path: Path, classes: ClassMap) -> None:
    """Writes the style file that QGIS 3 loads with a raster of the same stem beside it.

    GDAL can keep class names only in a second file, and a GeoTIFF's colour table has none.

    Args:
        path: the file, ``<stem of the raster>.qml``.
        classes: the class list.

    Raises:
        OSError: the file cannot be written.
    """
    root = ET.Element("qgis", version="3.0", styleCategories="Symbology")
    renderer = ET.SubElement(
        ET.SubElement(root, "pipe"),
        "rasterrenderer",
        {"type": "paletted", "band": "1", "opacity": "1", "alphaBand": "-1"},
    )
    palette = ET.SubElement(renderer, "colorPalette")
    for index, (name, color) in enumerate(zip(classes.names, classes.colors, strict=True)):
        shown = "#{:02x}{:02x}{:02x}".format(*color)
        ET.SubElement(
            palette, "paletteEntry", value=str(index), color=shown, alpha="255", label=name
        )
    ET.indent(root)
    text = _DOCTYPE + ET.tostring(root, encoding="utf-8") + b"\n"
    write_whole(path, lambda file: file.write(text))
