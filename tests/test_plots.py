"""What the figures show."""

import base64

import numpy as np
import pytest
import torch
from PIL import Image

from ignite_salak.plots import (
    confusion_figure,
    on_white,
    save_png,
    threshold_figure,
    to_data_uri,
)

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


def curves(colors=((250, 250, 0), (0, 0, 90))):
    return threshold_figure(
        np.array([0.0, 0.5, 1.0]),
        np.array([[0.5, 0.7, np.nan], [0.2, 0.4, 0.8]]),
        np.array([[1.0, 0.6, 0.0], [1.0, 0.5, 0.1]]),
        NAMES[1:],
        colors,
        chosen=[0.25, 0.5],
        wanted=0.9,
        title="50 % of $x",
    )


def test_threshold_curves_show_precision_and_kept_share_per_class():
    upper, lower = curves().axes
    lines = {line.get_label(): line for line in upper.get_lines()}
    assert np.array_equal(lines["Jalan"].get_ydata(), [0.2, 0.4, 0.8])
    assert np.array_equal(lines["wanted: 0.9"].get_ydata(), [0.9, 0.9])
    below = {line.get_label(): line for line in lower.get_lines()}
    assert np.array_equal(below["Badan $Air$"].get_ydata(), [1.0, 0.6, 0.0])
    assert lines["Jalan"].get_linestyle() != lines["Badan $Air$"].get_linestyle()
    dots = [line for line in upper.get_lines() if line.get_marker() == "o"]
    assert [(*dot.get_xdata(), *dot.get_ydata()) for dot in dots] == [(0.25, 0.6), (0.5, 0.4)]
    legend = [text.get_text() for text in curves().legends[0].get_texts()]
    assert legend == ["Badan $Air$", "Jalan", "wanted: 0.9"]


def test_threshold_curves_can_be_saved(tmp_path):
    save_png(curves(), tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as image:
        assert min(image.size) > 400


def luminance(color):
    values = np.asarray(color)
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return linear @ (0.2126, 0.7152, 0.0722)


@pytest.mark.parametrize("color", [(255, 255, 255), (255, 255, 0), (110, 193, 228)])
def test_bright_colours_are_darkened_until_they_show_on_white(color):
    shown = on_white(color)
    assert 1.05 / (luminance(shown) + 0.05) == pytest.approx(3.0, abs=0.01)
    assert np.argmax(shown) == np.argmax(color)


def test_dark_colours_stay_as_they_are():
    for color in ((0, 0, 0), (60, 16, 152), (150, 20, 20)):
        assert on_white(color) == pytest.approx(np.array(color) / 255, abs=1e-6)


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
