"""The script that makes pages again."""

import pytest

from experiments.console import run_script
from experiments.report import main
from experiments.train_v3 import main as train


@pytest.fixture(scope="module")
def run_folder(shared_plantation, tiny_flags, tmp_path_factory):
    """A finished run; its folder."""
    folder = tmp_path_factory.mktemp("run")
    flags = [f"--data-root={shared_plantation.root}", f"--checkpoint-dir={folder}", *tiny_flags]
    assert run_script(train, flags) == 0
    return folder


@pytest.fixture
def copies(run_folder, tmp_path):
    """Two folders with what a report reads."""
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        for name in ("config.json", "history.csv"):
            (folder / name).write_bytes((run_folder / name).read_bytes())
    return folders


def call(*arguments):
    return run_script(main, [str(argument) for argument in arguments])


def test_one_run(copies, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call(copies[0]) == 0
    assert capsys.readouterr().out.splitlines() == [str(copies[0] / "report.html")]
    assert "Best validation mIoU" in (copies[0] / "report.html").read_text(encoding="utf-8")
    assert not (tmp_path / "comparison.html").exists()


def test_several_runs_get_a_page_in_the_current_folder(copies, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call(*copies) == 0
    pages = [*(str(folder / "report.html") for folder in copies), "comparison.html"]
    assert capsys.readouterr().out.splitlines() == pages
    assert "2 runs side by side" in (tmp_path / "comparison.html").read_text(encoding="utf-8")


def test_the_page_goes_where_it_is_wanted(copies, tmp_path):
    page = tmp_path / "out.html"
    assert call(*copies, "--output", page) == 0
    assert page.exists()


def test_a_folder_given_twice_is_one(copies, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call(copies[0], copies[0] / "..", "--debug") == 2
    assert call(copies[0], copies[1] / ".." / "a") == 0
    assert not (tmp_path / "comparison.html").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no folder of a run is given"),
        (["nowhere"], "is not the folder of a run"),
        (["a", "--output", "x.html"], "report.html"),
        (["a", "b", "--output", "nowhere/x.html"], "its folder does not exist"),
        (["a", "nowhere"], "is not the folder of a run"),
    ],
)
def test_refusals_are_one_line_and_write_nothing(
    copies, capsys, tmp_path, monkeypatch, arguments, words
):
    monkeypatch.chdir(tmp_path)
    assert call(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error:")
    assert words in line
    assert not list(tmp_path.rglob("*.html"))


def test_a_damaged_history_is_named(copies, capsys):
    (copies[0] / "history.csv").write_text("iteration,loss\n1,many\n", encoding="utf-8")
    assert call(copies[0]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(copies[0] / "history.csv") in line
    assert "row 1" in line
