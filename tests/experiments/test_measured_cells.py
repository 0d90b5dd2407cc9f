"""The measured cells in the repository belong to its studies and to its page of results."""

import json
from pathlib import Path, PurePosixPath, PureWindowsPath
from statistics import mean, stdev

import pytest
import torch

from experiments.comparison.draws import read_draws
from experiments.comparison.draws_page import draws_page
from experiments.comparison.setting import Setting
from experiments.comparison.standing import stand
from experiments.comparison.study_file import read_study
from ignite_salak.metrics import scores_from_confusion

ROOT = Path(__file__).parents[2]
CELLS = ROOT / "experiments" / "cells"
STUDIES = {
    "dubai": "compare_dubai.json",
    "dubai_long": "compare_dubai_long.json",
    "dubai_other_photos": "compare_dubai_other_photos.json",
    "dubai_third_photos": "compare_dubai_other_photos.json",
    "dubai_fourth_photos": "compare_dubai_other_photos.json",
    "dubai_spread": "compare_dubai_spread.json",
    "dubai_other_spread": "compare_dubai_spread_draws.json",
    "dubai_third_spread": "compare_dubai_spread_draws.json",
    "dubai_fourth_spread": "compare_dubai_spread_draws.json",
    "dubai_v3_switches": "v3_switches_dubai.json",
    "dubai_v4": "ablate_v4_dubai.json",
}
FILES = sorted(CELLS.glob("*/*/*/*/cell.json"))


def test_there_are_some():
    assert {path.parents[3].name for path in FILES} == STUDIES.keys()


each = pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.parent.relative_to(CELLS)))


@each
def test_its_study_takes_it_for_finished(file, tmp_path):
    result = json.loads(file.read_text("utf-8"))
    study = read_study(ROOT / "experiments" / STUDIES[file.parents[3].name])
    for name in (*study.lists.values(), study.validation):
        (tmp_path / name).touch()
    setting = Setting(study, tmp_path, tmp_path, file.parents[3], threads=1)
    [cell] = [cell for cell in study.cells() if setting.folder(cell) == file.parent]
    made = (result["recipe"], result["list"], result["seed"])
    assert made == (cell.recipe.name, cell.listing, cell.seed)
    photos = {name: result["identity"][name] for name in ("labeled", "validation")}
    assert stand(file.parent, {**setting.identity(cell), **photos}, cell.name).state == "done"
    assert not result["commit"].endswith("-dirty")


@each
def test_its_photos_add_up_to_its_score(file):
    result = json.loads(file.read_text("utf-8"))
    if result.get("confusions") is None:
        pytest.skip("made before cells kept the photos, and its model is lost")
    whole = torch.tensor(list(result["confusions"].values())).sum(dim=0)
    found = scores_from_confusion(whole, result["classes"])
    assert found["mIoU"] == pytest.approx(result["last"]["mIoU"], abs=1e-6)


@each
def test_it_names_no_place_of_the_machine(file):
    result = json.loads(file.read_text("utf-8"))
    for flag in (*result["flags"], *result["environment"]["command"]):
        assert not PurePosixPath(flag).is_absolute()
        assert not PureWindowsPath(flag).is_absolute()


@each
def test_the_page_of_results_says_its_scores(file):
    result = json.loads(file.read_text("utf-8"))
    page = (ROOT / "experiments" / "RESULTS.md").read_text("utf-8")
    curve = " | ".join(f"{score:.3f}".lstrip("0") for _, score in result["curve"])
    assert f"| {curve} |" in page


DRAWS = [name for name, study in STUDIES.items() if study == "compare_dubai_other_photos.json"]
SPREAD = [name for name in STUDIES if name.endswith("_spread")]
LISTS = {
    **{draw: draw for draw in DRAWS},
    **{name: name.replace("_spread", "_photos") for name in SPREAD},
    "dubai_spread": "dubai_spread_patches",
}


@pytest.mark.parametrize("cells", LISTS)
def test_cells_were_run_with_the_lists_of_the_repository(cells):
    lists = ROOT / "experiments" / "lists" / LISTS[cells]
    validation = (lists / "validation.txt").read_text("utf-8").split()
    for file in (CELLS / cells).glob("*/*/*/cell.json"):
        result = json.loads(file.read_text("utf-8"))
        labeled = (lists / f"{result['list']}.txt").read_text("utf-8").split()
        assert result["identity"]["labeled"] == sorted(labeled)
        assert result["identity"]["validation"] == validation


@pytest.mark.parametrize(
    ("study", "names", "tables"),
    [
        ("compare_dubai_other_photos.json", ["dubai", *DRAWS], 1),
        ("compare_dubai_spread_draws.json", ["dubai", *DRAWS, *SPREAD], 4),
    ],
)
def test_the_page_of_results_says_what_the_draws_say_together(study, names, tables):
    known = read_study(ROOT / "experiments" / study)
    draws = read_draws(known, [CELLS / name for name in names])
    page = draws_page(known, draws).replace(f"{CELLS.as_posix()}/", "")
    results = (ROOT / "experiments" / "RESULTS.md").read_text("utf-8")
    found = [part for part in page.split("\n\n") if part.startswith("| draw |")]
    assert len(found) == tables
    for row in "\n".join(found).splitlines():
        assert row in results


README_ROWS = {
    "supervised, without class weights": ("supervised",),
    "V4": ("v4",),
    "V3, without class weights": ("v3",),
    "V3, with class weights": ("v3_weighted",),
    "DiverseNet: freezing, dropout": ("diversenet_freezing", "diversenet_dropout"),
    "S4GAN with V4's network": ("s4gan_v1_deeplabv3plus", "s4gan_v2_deeplabv3plus"),
    "S4GAN with its own": ("s4gan_v1", "s4gan_v2"),
    "supervised, all 48 photos": ("supervised",),
}
README_COLUMNS = (
    ("dubai", "labeled_4"),
    ("dubai", "labeled_8"),
    *((draw, "labeled_4") for draw in DRAWS),
)


def test_the_table_of_the_readme_says_their_means_and_deviations():
    readme = (ROOT / "README.md").read_text("utf-8")
    _, _, rest = readme.partition("| recipe | four labelled photos |")
    rows = [line.replace("**", "") for line in rest.split("\n\n")[0].splitlines()[2:]]
    assert len(rows) == len(README_ROWS)
    for row, (label, recipes) in zip(rows, README_ROWS.items(), strict=True):
        first, *said = (value.strip() for value in row.strip("|").split("|"))
        assert first.startswith(label)
        for value, (folder, listing) in zip(said, README_COLUMNS, strict=True):
            if label.startswith("supervised, all"):
                listing = {"labeled_4": "labeled_all"}.get(listing, "none")
            found = [_said(CELLS / folder / recipe / listing) for recipe in recipes]
            assert value in ((", ".join(found),) if found[0] else ("", "not run"))


def _said(folder):
    """What the seeds of one recipe and list have: mean and deviation, or one figure and a star."""
    cells = [json.loads(path.read_text("utf-8")) for path in folder.glob("seed_*/cell.json")]
    scores = [cell["last"]["mIoU"] for cell in cells]
    if not scores:
        return ""
    if len(scores) == 1:
        return f"{scores[0]:.3f} *"
    return f"{mean(scores):.3f} ± {stdev(scores):.3f}"
