"""The script, as a user calls it."""

import pytest

from experiments.console import run_script
from experiments.draws import main
from tests.experiments.comparison.made_up import draw, save_cells, write_study


@pytest.fixture
def folders(tmp_path):
    made = {}
    for name, photo in (("one", "a"), ("two", "b")):
        cells = draw(base=(0.3, {photo: 0.3}), own=(0.4, {photo: 0.4}), upper=(0.5, {photo: 0.5}))
        made[name] = str(save_cells(tmp_path / name, cells))
    return made


def test_prints_the_tables(tmp_path, folders, capsys):
    main([str(write_study(tmp_path / "study")), *folders.values()])
    assert "| all draws | 2 |  | 0.300 | 0.400 | 0.500 | +0.100 | 50 % |" in capsys.readouterr().out


def test_one_draw_is_an_error_of_one_line(tmp_path, folders, capsys):
    status = run_script(main, [str(write_study(tmp_path / "study")), folders["one"]])
    assert status == 2
    words = "error: give the folders of at least two draws, each with photos of its own\n"
    assert capsys.readouterr().err == words
