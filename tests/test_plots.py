"""What the figures show."""

import base64

import pytest
import torch
from PIL import Image

from ignite_salak.plots import confusion_figure, save_png, to_data_uri

NAMES = ("background", "Badan $Air$", "Jalan")
CONFUSION = torch.tensor([[750, 250, 0], [0, 2_000_000, 0], [0, 0, 0]])


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_cells_hold_row_share_and_count_and_absent_classes_a_dash():
    shown = texts(confusion_figure(CONFUSION, NAMES))
    assert shown[:3] == ["75.0%\n750", "25.0%\n250", "0.0%\n0"]
    assert shown[4] == "100.0%\n2.0M"
    assert shown[6:] == ["-", "-", "-"]


def test_ticks_are_the_names_as_they_are():
    axes = confusion_figure(CONFUSION, NAMES, "50 % of $x").axes[0]
    assert tuple(label.get_text() for label in axes.get_xticklabels()) == NAMES
    assert tuple(label.get_text() for label in axes.get_yticklabels()) == NAMES
    assert axes.get_title() == "50 % of $x"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("prediction", "truth")


def test_png_is_written_whole(tmp_path):
    path = tmp_path / "confusion.png"
    save_png(confusion_figure(CONFUSION, NAMES), path)
    with Image.open(path) as image:
        assert min(image.size) > 400
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(OSError, match="cannot write"):
        save_png(confusion_figure(CONFUSION, NAMES), tmp_path / "nowhere" / "a.png")


def test_data_uri_is_an_svg_of_its_own():
    head, _, content = to_data_uri(confusion_figure(CONFUSION, NAMES)).partition(",")
    assert head == "data:image/svg+xml;base64"
    assert b"<svg" in base64.b64decode(content)
