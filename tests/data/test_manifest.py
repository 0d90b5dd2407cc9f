"""What was recorded survives a killed process; other settings do not slip in."""

import pytest

from ignite_salak.data.manifest import Manifest

SETTINGS = {"patch size": 256, "edge": "pad"}


def write(folder, *tasks):
    manifest = Manifest(folder, SETTINGS)
    for task in tasks:
        manifest.add(task, {"patches": len(task)})
    manifest.close()


def test_goes_on(tmp_path):
    write(tmp_path / "a" / "b", "one", "zwei + ä")
    manifest = Manifest(tmp_path / "a" / "b", SETTINGS)
    assert manifest.done == {
        "one": {"task": "one", "patches": 3},
        "zwei + ä": {"task": "zwei + ä", "patches": 8},
    }
    manifest.add("three", {"patches": 5})
    manifest.close()
    assert set(Manifest(tmp_path / "a" / "b", SETTINGS).done) == {"one", "zwei + ä", "three"}


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_torn_line_is_forgotten_and_not_continued(tmp_path, cut):
    write(tmp_path, "one", "two")
    path = tmp_path / Manifest.NAME
    path.write_bytes(path.read_bytes()[:-cut])
    write(tmp_path, "three")
    assert set(Manifest(tmp_path, SETTINGS).done) == {"one", "three"}


def test_records_are_on_disk_before_it_is_closed(tmp_path):
    manifest = Manifest(tmp_path, SETTINGS)
    manifest.add("one", {})
    assert '"one"' in (tmp_path / Manifest.NAME).read_text(encoding="utf-8")
    manifest.close()


def test_other_settings_are_refused_by_name(tmp_path):
    write(tmp_path, "one")
    with pytest.raises(ValueError, match=r"begun with edge pad, now it is drop.*delete") as caught:
        Manifest(tmp_path, SETTINGS | {"edge": "drop"})
    assert str(tmp_path) in str(caught.value)
    assert set(Manifest(tmp_path, SETTINGS).done) == {"one"}


def test_foreign_folders_are_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(FileExistsError, match="in the way"):
        Manifest(tmp_path, SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_damaged_file_is_refused_by_name(tmp_path):
    write(tmp_path, "one")
    path = tmp_path / Manifest.NAME
    path.write_bytes(b"\0\0\n" + path.read_bytes())
    with pytest.raises(ValueError, match="is damaged; delete"):
        Manifest(tmp_path, SETTINGS)
