"""Options survive config.json, and tell what a resumed run should share."""

import json
from pathlib import Path

from experiments.config_file import comparable, from_json, to_dict
from experiments.options import (
    AugmentationOptions,
    DataOptions,
    RunOptions,
    SelfTrainingOptions,
)
from experiments.train_v3 import Options


def test_json_round_trip(tmp_path):
    options = Options(
        data=DataOptions(data_root=Path("some") / "where", num_classes=7),
        self_training=SelfTrainingOptions(classwise_thresholds=("Jalan=0.5",)),
        augmentation=AugmentationOptions(random_scale_range=(0.5, 2.0)),
        run=RunOptions(checkpoint_dir=Path("out")),
    )
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"options": to_dict(options)}), "utf-8")
    assert from_json(Options, path) == options


def test_a_resumed_run_shares_what_moves_its_results():
    def shared(**run):
        return comparable(to_dict(Options(run=RunOptions(**run))))

    plain = shared()
    assert plain["st-loss-weight"] == 1.0 and plain["seed"] == 0
    same = {"checkpoint_dir": Path("elsewhere"), "log_every": 7, "num_workers": 0}
    assert shared(**same) == plain
    for name, value in {"seed": 1, "threads": 3, "precision": "bf16", "eval_every": 9}.items():
        assert shared(**{name: value}) != plain
    cached = Options(data=DataOptions(cache="ram"))
    assert comparable(to_dict(cached)) == plain
