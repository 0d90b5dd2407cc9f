"""V3 and V4 look at no mask of an unlabelled image."""

import csv

import pytest

from experiments import train_v3, train_v4
from experiments.console import run_script

FOREIGN_TO_V4 = ("--st-start-iter", "--no-use-classwise-threshold")


@pytest.mark.parametrize("script", [train_v3, train_v4])
def test_no_mask_of_an_unlabelled_image_is_read(
    script, plantation, few_masks, tiny_flags, tmp_path
):
    flags = [
        flag for flag in tiny_flags if script is train_v3 or not flag.startswith(FOREIGN_TO_V4)
    ]
    where = [f"--data-root={plantation.root}", f"--checkpoint-dir={tmp_path / 'run'}"]
    bounds = ["--threshold-bounds", "0.1", "0.2"] if script is train_v4 else []
    split = [f"--labeled-files={few_masks}", "--val-split=0.5"]
    assert run_script(script.main, [*where, *flags, *split, *bounds]) == 0
    with (tmp_path / "run" / "history.csv").open(encoding="utf-8", newline="") as file:
        assert sum(float(row["st_px"] or 0) for row in csv.DictReader(file)) > 0
