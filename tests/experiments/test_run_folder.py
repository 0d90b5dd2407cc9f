"""A run's folder is its own."""

import pytest

from experiments.options import RunOptions
from experiments.run_folder import open_folder, prepare


def test_the_folder_of_another_run_is_refused(tmp_path):
    (tmp_path / "config.json").touch()
    with pytest.raises(FileExistsError, match="--overwrite"):
        prepare(RunOptions(checkpoint_dir=tmp_path))
    assert prepare(RunOptions(checkpoint_dir=tmp_path, overwrite=True)).type in ("cpu", "cuda")
    latest = tmp_path / "latest_checkpoint.pth"
    prepare(RunOptions(checkpoint_dir=tmp_path, restore_from=latest))
    with pytest.raises(FileExistsError, match="already holds a run"):
        prepare(RunOptions(checkpoint_dir=tmp_path, restore_from=tmp_path / "other" / "l.pth"))


def test_a_new_run_removes_the_files_of_the_one_before_and_nothing_else(tmp_path):
    ours = ["latest_checkpoint.pth", "checkpoint_5000.pth", "best_model_ema.pth", "history.csv"]
    theirs = ["notes.txt", "my_weights.pth"]
    for name in ours + theirs:
        (tmp_path / name).touch()
    open_folder(RunOptions(checkpoint_dir=tmp_path, restore_from=tmp_path / ours[0]))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(ours + theirs)
    open_folder(RunOptions(checkpoint_dir=tmp_path, overwrite=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(theirs)
