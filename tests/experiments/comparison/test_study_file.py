"""What files of studies say and what is refused; the studies and lists of the repository."""

from pathlib import Path

import pytest

from experiments.comparison.budget import budget, check_equal_budgets
from experiments.comparison.study_file import read_study
from tests.experiments.comparison.made_up import with_recipes, write_study

EXPERIMENTS = Path(__file__).parents[3] / "experiments"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"comon": []}, "the study: 'comon' is none of common, recipes"),
        ({"common": ["8"]}, "'8' belongs to no flag"),
        ({"common": ["--batch-size", 8]}, "8 is no string"),
        ({"common": ["--pretrained", "--no-pretrained"]}, "--pretrained is there twice"),
        ({"common": ["--seed=1"]}, '"common" has --seed: the comparison sets it'),
        (
            with_recipes(v3={"script": "train_v3", "flags": ["--num-steps=9"]}),
            "recipe 'v3' has --num-steps: it must be equal",
        ),
        (
            with_recipes(v3={"script": "train_v3", "flags": ["--no-random-mirror"]}),
            "recipe 'v3' has --random-mirror",
        ),
        (with_recipes(v3={"flags": []}), "recipe 'v3' lacks 'script'"),
        (with_recipes(v3=7), "recipe 'v3' is 7, expected an object"),
        (with_recipes(v3={"script": "train_v3", "seeds": []}), '"seeds"'),
        (with_recipes(v3={"script": "train_v3", "seeds": [-1]}), '"seeds"'),
        (with_recipes(v3={"script": "train_v3", "lists": ["all"]}), "'all' is none of four, eight"),
        (with_recipes(**{"a/b": {"script": "train_v3"}}), "'a/b' is no name of a folder"),
        ({"baseline": "v2"}, "\"baseline\": 'v2' is none of"),
        ({"baseline": {"recipe": "v2", "list": "four"}}, "\"baseline\": 'v2' is none of"),
        (
            {"baseline": {"recipe": "small", "list": "eight"}},
            "\"baseline\": 'eight' is none of four",
        ),
        ({"baseline": {"recipe": "v3"}}, "\"baseline\" lacks 'list'"),
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
