"""Made-up studies and cells for the tests of the comparison."""

import json
from pathlib import Path

from experiments.comparison.cells import collect

CLASSES = ["background", "palm", "road"]
STUDY = {
    "about": "made up",
    "common": ["--num-steps=20", "--batch-size", "2", "--eval-every=10", "--ema-decay=0.9"],
    "recipes": {
        "supervised": {"script": "train_v3", "flags": ["--st-loss-weight=0"]},
        "v3": {"script": "train_v3", "flags": ["--ema-decay=0.5"], "seeds": [0, 1]},
        "small": {"script": "train_v3", "seeds": [0], "lists": ["four"]},
    },
    "lists": {"all": "all.txt", "four": "4.txt", "eight": "8.txt"},
    "validation": "val.txt",
    "seeds": [2, 0, 1],
    "baseline": "supervised",
    "upper_bound": {"recipe": "supervised", "list": "all"},
}
IDENTITY = {"script": "train_v3", "flags": {"num-steps": "--num-steps 20"}, "seed": 3}


def write_study(folder: Path, changes=None, lists=True):
    """Writes the made-up study and its lists; returns its path."""
    folder.mkdir(exist_ok=True)
    if lists:
        for name in ("all", "4", "8", "val"):
            (folder / f"{name}.txt").write_text(f"# photos\n{name}_b\n{name}_a\n", encoding="utf-8")
    path = folder / "study.json"
    path.write_text(json.dumps({**STUDY, **(changes or {})}), encoding="utf-8")
    return path


def made_up(recipe, listing, seed, last, best=None, **more):
    """What a finished cell's cell.json says, in the parts that tables read."""
    best = last if best is None else best
    return {
        "recipe": recipe,
        "list": listing,
        "seed": seed,
        "identity": {"seed": seed, "threads": 1},
        "budget": {"num-steps": 20, "batch-size": 2, "input-size": None, "eval-every": 10},
        "minutes": 30.0,
        "classes": CLASSES,
        "last": judged(20, last),
        "best": judged(10, best),
        "st_px": None,
        "curve": [[10, 0.2], [20, last]],
        "unlabeled": None,
        "pseudo_labels": None,
        "environment": {"platform": "Linux", "python": "3.11", "cpus": 2, "packages": {}},
        "date": "2026-11-23T01:00:00+00:00",
        "commit": "abc",
        **more,
    }


def judged(iteration, score):
    """Scores of an evaluation; palm is a little better than road."""
    if score is None:
        return None
    ious = {"background": 0.9, "palm": score + 0.1, "road": score - 0.1}
    return {"iteration": iteration, "mIoU": score, "IoU": ious}


def save(folder, name, content):
    """Writes a JSON file of a cell."""
    (folder / name).write_text(json.dumps(content), encoding="utf-8")


def gather(folder, **judgement):
    """Makes cell.json of what a run has left."""
    return collect(
        folder,
        recipe="v3",
        listing="four",
        identity=IDENTITY,
        budget={"num-steps": 20},
        flags=["--seed", "3"],
        seconds=90.0,
        judgement=judgement,
    )
