"""The legend for QGIS."""

import xml.etree.ElementTree as ET

from ignite_salak.classes import ClassMap
from ignite_salak.inference.styles import write_qgis_style


def test_every_class_has_value_colour_and_name(tmp_path):
    classes = ClassMap(('bare <soil> & "sand"', "tiefes Gewässer"), ((1, 2, 3), (255, 0, 171)))
    write_qgis_style(tmp_path / "a.qml", classes)
    root = ET.fromstring((tmp_path / "a.qml").read_text(encoding="utf-8"))
    assert root.tag == "qgis"
    renderer = root.find("pipe/rasterrenderer")
    assert renderer.get("type") == "paletted"
    assert renderer.get("band") == "1"
    found = [entry.attrib for entry in renderer.findall("colorPalette/paletteEntry")]
    assert [(e["value"], e["color"], e["label"]) for e in found] == [
        ("0", "#010203", classes.names[0]),
        ("1", "#ff00ab", classes.names[1]),
    ]
