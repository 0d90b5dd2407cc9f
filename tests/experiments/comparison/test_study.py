"""What a study says, and what it refuses."""

from pathlib import Path

import pytest

from experiments.comparison.budget import budget, check_equal_budgets
from experiments.comparison.study import by_flag, read_study
from tests.experiments.comparison.made_up import STUDY, write_study

EXPERIMENTS = Path(__file__).parents[3] / "experiments"


def recipes(**changed):
    return {"recipes": {**STUDY["recipes"], **changed}}


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


def test_flags_are_grouped_by_name_and_a_recipes_own_win(study):
    tokens = ["--a_b=1=2", "--no-c", "--d", "0.5", "-2"]
    groups = {"a-b": ("--a-b", "1=2"), "c": ("--no-c",), "d": ("--d", "0.5", "-2")}
    assert by_flag(tokens, "here") == groups
    assert study.flags(study.recipes["v3"]) == {
        "batch-size": ("--batch-size", "2"),
        "ema-decay": ("--ema-decay", "0.5"),
        "eval-every": ("--eval-every", "10"),
        "num-steps": ("--num-steps", "20"),
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"comon": []}, "the study: 'comon' is none of common, recipes"),
        ({"common": ["8"]}, "'8' belongs to no flag"),
        ({"common": ["--batch-size", 8]}, "8 is no string"),
        ({"common": ["--pretrained", "--no-pretrained"]}, "--pretrained is there twice"),
        ({"common": ["--seed=1"]}, '"common" has --seed: the comparison sets it'),
        (
            recipes(v3={"script": "train_v3", "flags": ["--num-steps=9"]}),
            "recipe 'v3' has --num-steps: it must be equal",
        ),
        (
            recipes(v3={"script": "train_v3", "flags": ["--no-random-mirror"]}),
            "recipe 'v3' has --random-mirror",
        ),
        (recipes(v3={"flags": []}), "recipe 'v3' lacks 'script'"),
        (recipes(v3=7), "recipe 'v3' is 7, expected an object"),
        (recipes(v3={"script": "train_v3", "seeds": []}), '"seeds"'),
        (recipes(v3={"script": "train_v3", "seeds": [-1]}), '"seeds"'),
        (recipes(v3={"script": "train_v3", "lists": ["all"]}), "'all' is none of four, eight"),
        (recipes(**{"a/b": {"script": "train_v3"}}), "'a/b' is no name of a folder"),
        ({"baseline": "v2"}, "\"baseline\": 'v2' is none of"),
        ({"upper_bound": {"recipe": "v2", "list": "all"}}, "\"upper_bound\": 'v2' is none of"),
        ({"upper_bound": {"recipe": "v3", "list": "two"}}, "'two' is none of all, four"),
    ],
)
def test_refusals_say_where(tmp_path, changes, words):
    path = write_study(tmp_path, changes)
    with pytest.raises(ValueError) as caught:
        read_study(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_no_study_and_no_json_and_twins(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_study(tmp_path / "none.json")
    path = tmp_path / "study.json"
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"study .*study\.json"):
        read_study(path)
    path.write_text('{"common": [], "common": []}', encoding="utf-8")
    with pytest.raises(ValueError, match="'common' is there twice"):
        read_study(path)


def test_scripts_and_flags_are_tried_before_anything_runs(tmp_path):
    changes = recipes(
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
    changes = recipes(
        v3={"script": "train_s4gan"}, small={"script": "train_s4gan", "flags": ["--v2"]}
    )
    study = read_study(write_study(tmp_path, changes))
    v1, v2 = (study.options(study.recipes[name]) for name in ("v3", "small"))
    assert v1.adversarial.st_threshold == (0.6, 0.6)
    assert v2.adversarial.st_threshold == (0.05, 0.2)
    assert v2.adversarial.discriminator_start_iter == 500


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("compare_dubai", 2000),
        ("compare_dubai_256", 2000),
        ("compare_dubai_long", 4000),
        ("compare_dubai_other_photos", 2000),
        ("ablate_v4_dubai", 2000),
        ("v3_switches_dubai", 2000),
    ],
)
def test_the_studies_of_the_results_page_can_be_read(name, steps):
    study = read_study(EXPERIMENTS / f"{name}.json")
    options = {name: study.options(recipe) for name, recipe in study.recipes.items()}
    assert {each.schedule.num_steps for each in options.values()} == {steps}
    check_equal_budgets({name: budget(each) for name, each in options.items()})
    assert "labeled_4" in study.compared_lists()


DRAWS = ("other", "third", "fourth")


def photos_of(draw: str, name: str) -> list[str]:
    folder = EXPERIMENTS / "lists" / f"dubai_{draw}_photos"
    return (folder / f"{name}.txt").read_text("utf-8").split()


@pytest.mark.parametrize("draw", DRAWS)
def test_the_photos_of_a_draw_of_dubai_are_either_trained_on_or_judged(draw):
    labeled, whole, validation = (
        photos_of(draw, name) for name in ("labeled_4", "labeled_all", "validation")
    )
    assert [len({*photos}) for photos in (labeled, whole, validation)] == [4, 48, 16]
    assert {*labeled} < {*whole} and not {*whole} & {*validation}
    tiles = [photo.partition("_")[0] for photo in validation]
    assert sorted(tiles) == sorted(2 * [f"tile{number}" for number in range(1, 9)])


@pytest.mark.parametrize("name", ["labeled_4", "validation"])
def test_no_photo_of_dubai_is_labelled_or_judged_in_two_draws(name):
    photos = [photo for draw in DRAWS for photo in photos_of(draw, name)]
    assert len(photos) == len({*photos})
