"""How far a cell is."""

import json
import os

import pytest

from experiments.comparison.standing import Standing, stand, write_progress
from tests.experiments.comparison.made_up import IDENTITY, gather, save

OTHER = {**IDENTITY, "flags": {"num-steps": "--num-steps 30"}}


def test_standing_from_open_to_done(trained, tmp_path):
    assert stand(tmp_path / "none", IDENTITY, "cell") == Standing("open")
    write_progress(trained, IDENTITY, 12.0, None)
    assert stand(trained, IDENTITY, "cell") == Standing("begun", 20, 12.0, trained=True)
    (trained / "final_model.pth").unlink()
    assert stand(trained, IDENTITY, "cell") == Standing("begun", 20, 12.0)
    gather(trained)
    assert stand(trained, IDENTITY, "cell") == Standing("done", 20, 90.0, trained=True)


def test_an_interrupted_run_with_an_old_final_model_is_not_trained(trained):
    summary = json.loads((trained / "summary.json").read_text(encoding="utf-8"))
    save(trained, "summary.json", {**summary, "state": "interrupted"})
    write_progress(trained, IDENTITY, 12.0, None)
    assert not stand(trained, IDENTITY, "cell").trained


def test_a_living_process_makes_a_cell_busy_and_its_number_alone_does_not(tmp_path):
    write_progress(tmp_path, IDENTITY, 1.0, os.getpid())
    standing = stand(tmp_path, IDENTITY, "cell")
    assert (standing.state, standing.process) == ("busy", os.getpid())
    path = tmp_path / "cell_progress.json"
    progress = json.loads(path.read_text(encoding="utf-8"))
    progress["process"]["created"] -= 1000.0  # another process had the number
    save(tmp_path, path.name, progress)
    assert stand(tmp_path, IDENTITY, "cell").state == "begun"


def test_what_ran_on_after_the_call_was_killed_is_counted(trained):
    write_progress(trained, IDENTITY, 12.0, os.getpid())
    progress = json.loads((trained / "cell_progress.json").read_text(encoding="utf-8"))
    noted = progress["noted"]
    os.utime(trained / "history.csv", (noted + 30.0, noted + 30.0))
    assert stand(trained, IDENTITY, "cell").seconds == pytest.approx(42.0)
    os.utime(trained / "history.csv", (noted - 5.0, noted - 5.0))
    assert stand(trained, IDENTITY, "cell").seconds == 12.0


@pytest.mark.parametrize("done", [True, False])
def test_changed_flags_are_refused_with_both_values(trained, done):
    if done:
        gather(trained)
    else:
        write_progress(trained, IDENTITY, 1.0, None)
    with pytest.raises(ValueError) as caught:
        stand(trained, OTHER, "v3/four/seed_3")
    message = str(caught.value)
    assert "v3/four/seed_3 was made with --num-steps 20 instead of --num-steps 30" in message
    assert "--overwrite" in message


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "cell.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"cell\.json is damaged"):
        stand(tmp_path, IDENTITY, "cell")
