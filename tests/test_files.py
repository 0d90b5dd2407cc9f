"""Files are written whole or not at all, and damaged ones are refused by name."""

import json
import pickle
from pathlib import Path

import pytest
import torch

from ignite_salak import files
from ignite_salak.files import read_tensors, write_json, write_table, write_whole


class Harmful:
    def __reduce__(self):
        return eval, ("1 + 1",)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_file_is_written_and_replaced(tmp_path):
    path = tmp_path / "a.bin"
    for content in (b"one", b"two"):
        write_whole(path, lambda file, content=content: file.write(content))
        assert path.read_bytes() == content
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("error", [OSError("disk full"), RuntimeError("torch.save: no space")])
def test_failed_write_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def fail(file):
        file.write(b"half of it")
        raise error

    with pytest.raises(OSError, match=r"cannot write .*a\.bin.*intact") as caught:
        write_whole(path, fail)
    assert str(error) in str(caught.value)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_interruption_is_passed_on_and_leaves_nothing(tmp_path):
    def interrupt(file):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "a.bin", interrupt)
    assert names(tmp_path) == []


def test_old_file_stays_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    seen = []

    def write(file):
        file.write(b"new")
        seen.append(path.read_bytes())

    write_whole(path, write)
    assert seen == [b"old"]


def test_leftover_of_a_killed_process_is_replaced(tmp_path):
    (tmp_path / "a.bin.tmp").write_bytes(b"leftover of a longer file")
    write_whole(tmp_path / "a.bin", lambda file: file.write(b"new"))
    assert names(tmp_path) == ["a.bin"]
    assert (tmp_path / "a.bin").read_bytes() == b"new"


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        write_whole(tmp_path / "nowhere" / "a.bin", lambda file: file.write(b""))


def test_json_is_readable_utf8(tmp_path):
    path = tmp_path / "ä.json"
    values = {"name": "Pohon é 木", "numbers": [1, 2.5, None]}
    write_json(path, {**values, "path": Path("x")})
    raw = path.read_bytes()
    assert json.loads(raw.decode("utf-8")) == {**values, "path": "x"}
    assert "木".encode() in raw and raw.endswith(b"\n") and b"\r" not in raw


def test_tensors_return_as_saved(tmp_path):
    path = tmp_path / "a.pth"
    values = {"weights": torch.arange(6.0).view(2, 3), "iteration": 7}
    write_whole(path, lambda file: torch.save(values, file))
    read = read_tensors(path, "cpu")
    assert torch.equal(read["weights"], values["weights"]) and read["iteration"] == 7


def test_damaged_tensor_files_are_refused(tmp_path):
    path = tmp_path / "a.pth"
    with pytest.raises(FileNotFoundError, match=r"a\.pth"):
        read_tensors(path, "cpu")
    torch.save({"weights": torch.zeros(1000)}, path)
    whole = path.read_bytes()
    middle = len(whole) // 2
    for content in (b"", b"text", whole[:middle], whole[:100] + bytes(200) + whole[300:]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.pth"):
            read_tensors(path, "cpu")


def test_files_that_hold_something_else_are_refused(tmp_path):
    path = tmp_path / "a.pth"
    for content in ([1, 2], {"code": Harmful()}):
        torch.save(content, path)
        with pytest.raises(ValueError, match=r"a\.pth"):
            read_tensors(path, "cpu")
    path.write_bytes(pickle.dumps({"old": "format"}))
    with pytest.raises(ValueError, match=r"a\.pth"):
        read_tensors(path, "cpu")


def test_table_has_the_columns_in_the_order_of_their_first_row(tmp_path):
    path = tmp_path / "a.csv"
    write_table(path, [{"iteration": 1, "kelas": "air, lumpur"}, {"iteration": 2, "gap": 0.5}])
    text = 'iteration,kelas,gap\r\n1,"air, lumpur",\r\n2,,0.5\r\n'
    assert path.read_bytes() == text.encode("utf-8")


def test_table_that_is_open_elsewhere_costs_a_warning(tmp_path, monkeypatch, caplog):
    path = tmp_path / "a.csv"
    write_table(path, [{"iteration": 1}])

    def refuse(*_):
        raise PermissionError("in use")

    monkeypatch.setattr(files, "_rename", refuse)
    write_table(path, [{"iteration": 2}])
    assert "open in another program" in caplog.text
    assert path.read_text(encoding="utf-8").splitlines() == ["iteration", "1"]
