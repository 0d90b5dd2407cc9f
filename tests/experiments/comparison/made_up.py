"""Made-up studies and cells for the tests of the comparison."""

import json
import subprocess
import sys
from pathlib import Path

from experiments.comparison.cell_run import CellRun
from experiments.comparison.cells import RESULT, collect
from experiments.comparison.flag_groups import by_flag
from experiments.comparison.standing import stand

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
RUN = """
import json, pathlib, sys, time
folder, status, seconds = pathlib.Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
last = {"iteration": 20, "score": 0.5, "confusion": [[9, 0, 0], [0, 4, 1], [0, 1, 4]]}
summary = {"state": "completed", "classes": %r, "last": last, "best": last, "warnings": []}
(folder / "history.csv").write_text("iteration,validation/mIoU\\n20,0.5\\n")
(folder / "summary.json").write_text(json.dumps(summary))
time.sleep(seconds)
if status == 0:
    (folder / "final_model.pth").write_bytes(b"")
else:
    print("error: it went wrong", flush=True)
sys.exit(max(0, status))
"""
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


def with_recipes(**changed):
    """Changes of the made-up study: some of its recipes."""
    return {"recipes": {**STUDY["recipes"], **changed}}


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


def confusions(**scores):
    """Matrices of photos whose mIoU, by name, is a multiple of 0.1, each alone."""
    made = {}
    for name, score in scores.items():
        right, wrong = round(10 * score), 10 - round(10 * score)
        made[name] = [[0, 0, 0], [wrong, right, 0], [wrong, 0, right]]
    return made


def draw(**scores):
    """Cells of base, own and upper bound; of each its mIoU, and that of its photos by name."""
    cells = {"base": ("supervised", "four"), "own": ("v3", "four"), "upper": ("supervised", "all")}
    return [
        made_up(
            *cells[name],
            0,
            score,
            confusions=confusions(**photos),
            identity={
                "script": "train_v3",
                "flags": {},
                "labeled": ["x.jpg"],
                "validation": [f"{photo}.jpg" for photo in photos],
                "seed": 0,
                "threads": 1,
            },
        )
        for name, (score, photos) in scores.items()
    ]


def save_cells(folder, results):
    """Writes finished cells as ``compare`` does; returns the folder."""
    for result in results:
        place = folder / result["recipe"] / result["list"] / f"seed_{result['seed']}"
        place.mkdir(parents=True)
        save(place, RESULT, result)
    return folder


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


class Stage:
    """Starts small processes in place of the scripts; keeps what was called."""

    def __init__(self):
        self.calls = []
        self.status = {}
        self.seconds = 0.0

    def __call__(self, script, flags, log):
        groups = by_flag(flags, "flags")
        self.calls.append((script, groups))
        folder = groups.get("checkpoint-dir", groups.get("output", ("", "")))[1]
        Path(folder).mkdir(parents=True, exist_ok=True)
        if script == "evaluate":
            judged = [{"name": "all", "precision": 0.8, "kept_share": 0.5}]
            content = {
                "confusions": {"val_a": [[9, 0, 0], [0, 4, 1], [0, 1, 4]]},
                "scores": {"mIoU": 0.4},
                "patches": 3,
                "pseudo_labels": {"judged": judged},
            }
            Path(folder, "metrics.json").write_text(json.dumps(content), encoding="utf-8")
        key = groups["pool" if script == "evaluate" else "seed"][1]
        status = str(self.status.get(key, 0))
        code = [sys.executable, "-c", RUN % CLASSES, folder, status, str(self.seconds)]
        with log.open("a", encoding="utf-8") as file:
            return subprocess.Popen(code, stdout=file, stderr=file)


def cell_runs(setting, count):
    """Returns the first cells of V3, ready to start."""
    cells = setting.study.cells(["v3"])[:count]
    return [
        CellRun(
            setting,
            cell,
            setting.study.options(cell.recipe),
            stand(setting.folder(cell), setting.identity(cell), cell.name),
        )
        for cell in cells
    ]
