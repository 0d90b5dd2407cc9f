"""Folders of runs, as training writes them."""

import csv
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

NAMES = (
    "__background__",
    "Badan Air",
    "Bangunan",
    "Jalan",
    "Pohon Berinang",
    "Snake Fruit",
    "Tanah Terbuka",
)
COLORS = (
    (0, 0, 0),
    (0, 128, 255),
    (255, 0, 0),
    (255, 255, 0),
    (0, 128, 0),
    (128, 0, 128),
    (255, 250, 250),
)
OPTIONS = {
    "data": {"data_root": "DATA", "input_size": None, "skip_bad_files": False},
    "loss": {"use_class_weights": True, "ce_weight": 0.4},
    "self_training": {"st_loss_weight": 1.0, "st_start_iter": 500, "classwise_thresholds": []},
    "schedule": {"batch_size": 8, "num_steps": 3000, "learning_rate": 0.00025},
    "run": {"checkpoint_dir": "runs/a", "log_every": 50, "early_stop_patience": None, "seed": 0},
    "demo": False,
}


def config(names=NAMES, colors=COLORS, options=None, **facts):
    """Returns the content of a config.json; ``options`` replaces single values by group."""
    merged = {
        group: {**values, **(options or {}).get(group, {})} if isinstance(values, dict) else values
        for group, values in OPTIONS.items()
    }
    weights = [0.5 + index for index in range(len(names))]
    return {
        "options": merged,
        "classes": {
            "names": list(names),
            "colors": [list(color) for color in colors],
            "thresholds": [None] * len(names),
        },
        "thresholds": dict.fromkeys(names, 0.6),
        "class_weights": dict(zip(names, weights, strict=True)),
        "sources": {"labelled": ["a", "b"], "validation": ["c"], "unlabelled": ["d"]},
        "environment": {
            "command": ["train_v3.py", "--data-root", "DATA"],
            "packages": {"torch": "2.15.0"},
            "device": "cpu",
        },
        **facts,
    }


def history(names=NAMES, total=3000, every=50, evaluate=500, st_start=500, level=0.7, seed=0):
    """Returns the rows of a plausible history.csv."""
    random = np.random.default_rng(seed)
    rows = []
    for step in range(every, total + 1, every):
        rest, noise = math.exp(-4 * step / total), random.normal()
        parts = {name: 0.2 + scale * rest for name, scale in (("ce", 1.3), ("dice", 0.6))}
        on = step >= st_start
        row = {"iteration": step, "loss": sum(parts.values()) + 0.03 * noise, **parts}
        row |= {"focal": 0.1 + 0.4 * rest, "st": 0.4 * on}
        row |= {"st_px": on * (42_000 * (1 - rest) + 900 * noise), "st_share": on * (0.9 - rest)}
        row |= {f"st_px/{name}": on * 6000.0 for name in names[1:]}
        row |= {"disagreement": 0.05 * on, "grad_norm": 2 + rest, "ema_decay": 0.9995}
        rate = 2.5e-4 * (1 + math.cos(math.pi * step / total)) / 2
        row |= {"lr/encoder": rate, "lr/decoder": 10 * rate, "seconds_per_iteration": 1.6}
        if step % evaluate == 0:
            row |= scores(names, level, rest, random)
        rows.append(row)
    return rows


def scores(names, level, rest, random):
    """Returns the columns of one evaluation."""
    values = {}
    for pool, ahead in (("validation", 0.0), ("training", 0.04)):
        classes = {name: level + ahead - 0.5 * rest + 0.1 * random.normal() for name in names}
        classes = {name: min(max(value, 0.0), 0.99) for name, value in classes.items()}
        values[f"{pool}/mIoU"] = level + ahead - 0.4 * rest
        for score in ("IoU", "precision", "recall", "F1"):
            values |= {f"{pool}/{score}/{name}": value for name, value in classes.items()}
    values["gap"] = values["training/mIoU"] - values["validation/mIoU"]
    return values


def summary(classes, best, last, state="completed", warnings=()):
    """Returns the content of a summary.json."""
    confusion = [
        [1000 if row == column else 7 for column in range(classes)] for row in range(classes)
    ]
    judged = [
        {"iteration": iteration, "score": 0.5, "confusion": confusion} for iteration in (best, last)
    ]
    return {
        "state": state,
        "iteration": last,
        "total": last,
        "best": judged[0],
        "last": judged[1],
        "warnings": [{"sign": str(i), "iteration": i, "text": text} for i, text in warnings],
    }


def write(folder, *, config=None, history=None, summary=None, panels=()):
    """Writes a run's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("config", config), ("summary", summary)):
        if content is not None:
            (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    if history is not None:
        columns = list(dict.fromkeys(name for row in history for name in row))
        with (folder / "history.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(history)
    for name in panels:
        (folder / "panels").mkdir(exist_ok=True)
        Image.new("RGB", (64, 48), (10, 120, 30)).save(folder / "panels" / name)
    return folder


@pytest.fixture
def runs():
    """The functions above."""
    return SimpleNamespace(
        names=NAMES, colors=COLORS, config=config, history=history, summary=summary, write=write
    )


@pytest.fixture
def folder(tmp_path):
    """A complete run of 3,000 iterations, with everything."""
    return write(
        tmp_path / "a run",
        config=config(),
        history=history(),
        summary=summary(len(NAMES), 3000, 3000, warnings=[(2000, "gap 0.11 is above 0.10")]),
        panels=("validation_002500.png", "validation_003000.png", "unlabeled_003000.png"),
    )
