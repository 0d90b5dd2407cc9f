"""What is known of a folder of maps when a run is continued."""

import hashlib
import json

import numpy as np
import pytest

from experiments.map_record import MapRecord
from ignite_salak.inference.areas import ClassAreas


@pytest.fixture
def begin(tmp_path, classes):
    """Returns a function that opens the record of a folder as a run does."""
    checkpoint = tmp_path / "model.pth"
    checkpoint.write_bytes(b"a model")

    def begin(overwrite=False, **settings):
        record = MapRecord(tmp_path / "maps", classes, checkpoint, settings)
        record.load(overwrite=overwrite)
        return record

    return begin


def finish(record, name, path, ending):
    record.begin({})
    (record.folder / f"{name}_{ending}").touch()
    record.table.append(name, str(path.resolve()), ClassAreas(np.array([1, 2, 3]), None))
    record.table.finish()


@pytest.mark.parametrize(
    ("ending", "finished"),
    [("classes.png", True), ("classes.tif", True), ("classes.tif.partial", False)],
)
def test_an_input_is_finished_once_its_areas_and_its_map_are_there(
    begin, tmp_path, capsys, ending, finished
):
    pictures = {name: tmp_path / f"{name}.jpg" for name in ("a", "b")}
    record = begin()
    assert record.waiting(pictures) == pictures
    finish(record, "a", pictures["a"], ending)
    capsys.readouterr()
    waiting = begin().waiting(pictures)
    assert list(waiting) == (["b"] if finished else ["a", "b"])
    assert ("1 of 2 inputs are finished" in capsys.readouterr().out) == finished


def test_the_record_has_settings_and_surroundings(begin, classes):
    record = begin(bands=(3, 2, 1))
    record.begin({"python": "3"})
    content = json.loads((record.folder / "predict.json").read_text(encoding="utf-8"))
    assert content["environment"] == {"python": "3"}
    model = hashlib.sha256(b"a model").hexdigest()
    assert content["settings"] == {"checkpoint (SHA-256)": model, "bands": [3, 2, 1]}
    assert type(classes).from_csv(record.folder / "class_mapping.csv") == classes


def test_other_settings_are_refused_unless_all_is_made_anew(begin, tmp_path):
    record = begin(bands=(3, 2, 1))
    finish(record, "a", tmp_path / "a.jpg", "classes.png")
    assert begin(bands=(3, 2, 1)).table.done.keys() == {"a"}
    with pytest.raises(ValueError, match=r"bands \[3, 2, 1\], now None: give another --output"):
        begin(bands=None)
    assert not begin(overwrite=True, bands=None).table.done


def test_a_map_of_another_picture_is_refused(begin, tmp_path):
    record = begin()
    finish(record, "a", tmp_path / "a.jpg", "classes.png")
    with pytest.raises(ValueError, match=r"holds a as a map of .*a\.jpg, not of .*a\.png"):
        begin().waiting({"a": tmp_path / "a.png"})
