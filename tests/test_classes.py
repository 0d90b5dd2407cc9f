"""Class lists: every form of the file, every refusal, thresholds, round trips."""

import json

import numpy as np
import pytest

from ignite_salak.classes import SALAK_THRESHOLDS, ClassMap

NAMES = ("__background__", "Badan Air", "Jalan")
COLORS = ((0, 0, 0), (255, 50, 50), (109, 255, 50))


@pytest.fixture
def write(tmp_path):
    def write_file(content, encoding="utf-8"):
        path = tmp_path / "class_mapping.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
        return path

    return write_file


@pytest.mark.parametrize(
    "text",
    [
        "__background__,0 0 0\nBadan Air,255 50 50\nJalan,109 255 50\n",
        "__background__,0,0,0\nBadan Air,255,50,50\nJalan,109,255,50\n",
        "__background__ 0 0 0\nBadan Air 255 50 50\nJalan 109 255 50",
        "__background__\t0\t0\t0\nBadan Air\t255\t50\t50\nJalan\t109\t255\t50",
        "__background__;0 0 0\nBadan Air;255 50 50\nJalan;109 255 50\n",
        "__background__;0;0;0\nBadan Air;255;50;50\nJalan;109;255;50\n",
        "class_name,class_color\n__background__,0 0 0\nBadan Air,255 50 50\nJalan,109 255 50\n",
        "name;R;G;B\n__background__;0;0;0\nBadan Air;255;50;50\nJalan;109;255;50\n",
        "name,color,\n__background__, 0 0 0 ,\n Badan Air ,255  50 50,\nJalan,109 255 50,\n\n",
        "# made by hand; in 2024\n\n__background__,0 0 0\n  # water\nBadan Air,255 50 50\n"
        "Jalan,109 255 50\n",
        '"__background__","0 0 0"\n"Badan Air","255 50 50"\n"Jalan","109 255 50"\n',
    ],
)
def test_every_form_gives_the_same_classes(write, text):
    for variant in (text, text.replace("\n", "\r\n"), "\ufeff" + text):
        classes = ClassMap.from_csv(write(variant))
        assert (classes.names, classes.colors) == (NAMES, COLORS)
        assert classes.thresholds == (None, None, None)


def test_names_may_have_any_letters_and_a_semicolon(write):
    text = "Hintergrund,0 0 0\nGewässer; See,1 2 3\n蛇皮果,4 5 6\n"
    classes = ClassMap.from_csv(write(text))
    assert classes.names == ("Hintergrund", "Gewässer; See", "蛇皮果")


@pytest.mark.parametrize(
    "text",
    [
        "class_name,class_color,confidence_threshold\nbg,0 0 0,\nwater,1 2 3,0.6\nroad,4 5 6,0.75",
        "bg,0,0,0\nwater,1,2,3,0.6\nroad,4,5,6,0.75",
        "bg;0 0 0;\nwater;1 2 3;0.6\nroad;4 5 6;0.75",
        # Excel writes this where the comma is the decimal sign, as in Indonesia.
        "bg;0 0 0;\nwater;1 2 3;0,6\nroad;4 5 6;0,75",
    ],
)
def test_threshold_column(write, text):
    assert ClassMap.from_csv(write(text)).thresholds == (None, 0.6, 0.75)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("bg,0 0 0\nwater,1 2\n", 2, "colour"),
        ("bg,0 0 0\n\nwater\n", 3, "colour"),
        ("bg,0 0 0\nwater,red\n", 2, "colour"),
        ("bg,0 0 0\nwater,1 2 256\n", 2, "0-255"),
        ("bg,0 0 0\nwater,-1 2 3\n", 2, "0-255"),
        ("bg,0 0 0\nwater,0.1 0.2 0.3\n", 2, "0-255"),
        ("bg,0 0 0\n,1 2 3\n", 2, "name"),
        ("bg,0 0 0\nwater,1 2 3,high\n", 2, "high"),
        ("name,color\nbg,\nwater,1 2 3\nroad,4 5 6\n", 2, "colour"),
        # A decimal comma between commas would be the threshold 0.
        ("bg,0 0 0\nwater,1 2 3,0,6\n", 2, "'6' follows"),
    ],
)
def test_malformed_lines_are_named(write, text, line, words):
    with pytest.raises(ValueError, match=rf"class_mapping\.csv, line {line}:") as caught:
        ClassMap.from_csv(write(text))
    assert words in str(caught.value) and "expected 'name,R G B'" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no class"),
        ("# only a comment\n\n", "no class"),
        ("class_name,class_color\n", "no class"),
        ("bg,0 0 0\n", "between 2 and"),
        ("\n".join(f"c{i},{i} 0 0" for i in range(251)), "251 classes"),
        ("bg,0 0 0\nwater,1 2 3\nWATER,4 5 6\n", "duplicate class name 'water'"),
        ("bg,0 0 0\nwater,1 2 3\nroad,1 2 3\n", r"'water' \(index 1\) and 'road' \(index 2\)"),
        ("bg,0 0 0\nwater,1 2 3,1.5\n", "threshold 1.5"),
        ("bg,0 0 0\nwater,1 2 3,nan\n", "threshold nan"),
        ("bg,0 0 0\nGewässer,1 2 3\n".encode("cp1252"), "UTF-8"),
        ("bg,0 0 0\nwater,1 2 3\n".encode("utf-16"), "UTF-8"),
        ("bg,0 0 0\nwater," + "1" * 200_000, "not a CSV"),
    ],
)
def test_unusable_lists_are_refused_by_name(write, text, words):
    with pytest.raises(ValueError, match=words) as caught:
        ClassMap.from_csv(write(text))
    assert "class_mapping.csv" in str(caught.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.csv"):
        ClassMap.from_csv(tmp_path / "nothing.csv")


def test_inconsistent_arguments_are_refused():
    with pytest.raises(ValueError, match="must be equal"):
        ClassMap(("a", "b"), ((0, 0, 0),))
    with pytest.raises(ValueError, match="must be equal"):
        ClassMap(("a", "b"), ((0, 0, 0), (1, 1, 1)), (0.5,))
    with pytest.raises(ValueError, match="three numbers"):
        ClassMap(("a", "b"), ((0, 0, 0), (1, 1, 300)))


def test_250_classes_leave_room_for_255():
    colors = tuple((i, 0, 0) for i in range(250))
    classes = ClassMap(tuple(f"c{i}" for i in range(250)), colors)
    assert classes.num_classes == 250
    assert classes.palette.dtype == np.uint8 and classes.palette.shape == (250, 3)


def test_round_trips(tmp_path):
    classes = ClassMap(
        ("bg", 'a "quoted" name', "sémi; colon, comma"),
        ((0, 0, 0), (1, 2, 3), (255, 254, 253)),
        (None, 0.1, 1.0),
    )
    classes.to_csv(tmp_path / "c.csv")
    assert ClassMap.from_csv(tmp_path / "c.csv") == classes
    assert ClassMap.from_dict(json.loads(json.dumps(classes.to_dict()))) == classes


def test_thresholds_are_taken_in_the_documented_order():
    classes = ClassMap(
        ("bg", "badan AIR", "Jalan", "Snake Fruit", "other"),
        tuple((i, i, i) for i in range(5)),
        (None, 0.9, None, None, None),
    )
    listed = [0.5, 0.9, SALAK_THRESHOLDS["jalan"], SALAK_THRESHOLDS["snake fruit"], 0.5]
    assert classes.resolve_thresholds(0.5) == listed
    overrides = {" BADAN air ": 0.1, "4": 0.2}
    assert classes.resolve_thresholds(0.5, overrides=overrides) == [0.5, 0.1, *listed[2:4], 0.2]
    assert classes.resolve_thresholds(0.5, classwise=False) == [0.5] * 5


def test_guide_thresholds_are_those_of_the_guide():
    classes = ClassMap(
        ("bg", *(name.title() for name in SALAK_THRESHOLDS)), tuple((i, 0, 0) for i in range(7))
    )
    assert classes.resolve_thresholds(0.65) == [0.65, 0.60, 0.65, 0.70, 0.65, 0.55, 0.60]


@pytest.mark.parametrize("overrides", [{"watr": 0.5}, {"5": 0.5}, {"-1": 0.5}, {"": 0.5}])
def test_unknown_class_in_overrides_is_refused(classes, overrides):
    with pytest.raises(ValueError, match=r"unknown class.*background, water, road"):
        classes.resolve_thresholds(0.5, overrides=overrides)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_threshold_out_of_range_is_refused(classes, value):
    with pytest.raises(ValueError, match="water"):
        classes.resolve_thresholds(0.5, overrides={"water": value})
    with pytest.raises(ValueError, match="between 0 and 1"):
        classes.resolve_thresholds(value)
