"""What a study says."""

import pytest

from experiments.comparison.study_file import read_study
from tests.experiments.comparison.made_up import with_recipes, write_study


@pytest.fixture
def study(tmp_path):
    return read_study(write_study(tmp_path))


def test_cells_come_seed_by_seed_the_upper_bound_last(study):
    assert [cell.name for cell in study.cells()] == [
        "supervised/four/seed_0",
        "v3/four/seed_0",
        "small/four/seed_0",
        "supervised/eight/seed_0",
        "v3/eight/seed_0",
        "supervised/all/seed_0",
        "supervised/four/seed_1",
        "v3/four/seed_1",
        "supervised/eight/seed_1",
        "v3/eight/seed_1",
        "supervised/all/seed_1",
        "supervised/four/seed_2",
        "supervised/eight/seed_2",
        "supervised/all/seed_2",
    ]
    assert {cell.recipe.name for cell in study.cells(["v3"])} == {"v3"}
    with pytest.raises(ValueError, match="--only v9: the study has supervised, v3, small"):
        study.cells(["v9"])


def test_without_an_upper_bound_every_list_is_compared(tmp_path):
    study = read_study(write_study(tmp_path, {"upper_bound": None}))
    assert study.compared_lists() == ("all", "four", "eight")


def test_a_recipes_own_flags_win(study):
    assert study.flags(study.recipes["v3"]) == {
        "batch-size": ("--batch-size", "2"),
        "ema-decay": ("--ema-decay", "0.5"),
        "eval-every": ("--eval-every", "10"),
        "num-steps": ("--num-steps", "20"),
    }


def test_scripts_and_flags_are_tried_before_anything_runs(tmp_path):
    changes = with_recipes(
        v3={"script": "train_v3", "flags": ["--no-such=1"]}, small={"script": "train_nothing"}
    )
    study = read_study(write_study(tmp_path, changes))
    with pytest.raises(
        ValueError, match=r"'v3': experiments\.train_v3 refuses its flags: .*--no-s"
    ):
        study.options(study.recipes["v3"])
    with pytest.raises(ValueError, match=r"'small': there is no experiments/train_nothing\.py"):
        study.options(study.recipes["small"])
    assert study.options(study.recipes["supervised"]).schedule.num_steps == 20


def test_defaults_that_a_flag_brings_are_a_recipes_own(tmp_path):
    changes = with_recipes(
        v3={"script": "train_s4gan"}, small={"script": "train_s4gan", "flags": ["--v2"]}
    )
    study = read_study(write_study(tmp_path, changes))
    v1, v2 = (study.options(study.recipes[name]) for name in ("v3", "small"))
    assert v1.adversarial.st_threshold == (0.6, 0.6)
    assert v2.adversarial.st_threshold == (0.05, 0.2)
    assert v2.adversarial.discriminator_start_iter == 500
