"""The S4GAN script: V1, V2, files, resume, refusals."""

import csv
import json
import math
import shutil

import pytest
import torch

from experiments.console import parse, run_script
from experiments.evaluate import main as evaluate
from experiments.train_s4gan import Options, main
from ignite_salak.models.model_file import load_model
from ignite_salak.steps.adversarial import AdversarialStep

OTHERS = (
    *("--st-start-iter", "--confidence-threshold", "--no-use-classwise-threshold"),
    *("--ema-decay", "--warmup-iters"),
)
WEIGHTS = ("final_model.pth", "final_model_ema.pth")


@pytest.fixture(scope="module")
def flags(tiny_flags):
    """Flags of a run of seconds in which patches pass from the start."""
    kept = [flag for flag in tiny_flags if not flag.startswith(OTHERS)]
    kept += ["--learning-rate=0.0003", "--output-stride=16"]
    return [*kept, "--no-multi-scale", "--st-threshold", "0.2", "0.2"]


def train(root, folder, flags, *extra):
    given = [f"--data-root={root}", f"--checkpoint-dir={folder}", *flags, *extra]
    return run_script(main, [str(flag) for flag in given])


def read_history(folder):
    with (folder / "history.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_defaults_are_v1s_and_v2s():
    v1, v2 = parse(Options, []), parse(Options, ["--v2"])
    for options in (v1, v2):
        assert (options.model.backbone, options.model.output_stride) == ("resnet101", 8)
        assert options.adversarial.fm_loss_weight == 0.1
        assert options.adversarial.st_loss_weight == 1.0
        assert options.adversarial.discriminator_learning_rate == 1e-4
    assert v1.adversarial.st_threshold == (0.6, 0.6)
    assert v1.adversarial.discriminator_start_iter == 1
    assert (v1.schedule.ema_decay, v1.schedule.gradient_clip) == (0.0, math.inf)
    assert v1.schedule.warmup_iters == 0
    assert v2.adversarial.st_threshold == (0.05, 0.20)
    assert v2.adversarial.discriminator_start_iter == 500
    assert (v2.schedule.ema_decay, v2.schedule.gradient_clip) == (0.9995, 10.0)
    assert v2.schedule.warmup_iters == 1000
    assert (v1.v2, v2.v2) == (False, True)


@pytest.fixture(scope="module")
def finished(shared_plantation, flags, tmp_path_factory):
    """A finished run of V1: its folder, and the names of what every batch held."""
    folder = tmp_path_factory.mktemp("v1")
    batches = []
    call = AdversarialStep.__call__

    def watched(self, engine, batch):
        batches.append({pool: set(content) for pool, content in batch.items()})
        return call(self, engine, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AdversarialStep, "__call__", watched)
        assert train(shared_plantation.root, folder, flags) == 0
    return folder, batches


def test_v1_runs_and_its_judged_model_is_the_last_one(finished):
    folder, _ = finished
    last, judged = (load_model(folder / name) for name in WEIGHTS)
    assert last.spec.architecture == judged.spec.architecture == "deeplabv2"
    assert same(last.model.state_dict(), judged.model.state_dict())
    assert last.model(torch.rand(1, 3, 32, 32)).shape == (1, 1, 7, 32, 32)
    row = read_history(folder)[-1]
    for name in ("loss", "ce", "fm", "st", "d_loss", "d_real", "d_fake", "lr/discriminator"):
        assert float(row[name]) > 0
    assert float(row["st_px"]) > 0
    assert "st_px/__background__" not in row
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["options"]["schedule"]["gradient_clip"] == math.inf


def test_it_trains_the_network_of_the_other_recipes_too(shared_plantation, flags, tmp_path):
    folder = tmp_path / "plus"
    extra = ["--architecture=deeplabv3plus", "--decoder-channels=8", "--num-steps=2"]
    assert train(shared_plantation.root, folder, flags, *extra) == 0
    saved = load_model(folder / WEIGHTS[0])
    assert (saved.spec.architecture, saved.spec.num_heads) == ("deeplabv3plus", 1)
    assert saved.spec.decoder_channels == 8
    assert saved.model(torch.rand(1, 3, 32, 32)).shape == (1, 1, 7, 32, 32)


def test_no_mask_of_an_unlabelled_patch_is_needed(finished, shared_plantation):
    assert not list(shared_plantation.root.glob("salak-1-3/masks/*"))
    _, batches = finished
    assert len(batches) == 6
    for batch in batches:
        assert "mask" in batch["labeled"]
        assert "mask" not in batch["unlabeled"]


def test_its_model_file_can_be_evaluated(finished, shared_plantation, tmp_path):
    folder, _ = finished
    model = folder / "final_model_ema.pth"
    given = ["--data-root", shared_plantation.root, "--checkpoint", model, "--num-workers=0"]
    given += ["--output", tmp_path / "scores"]
    assert run_script(evaluate, [str(flag) for flag in given]) == 0


def test_resume_is_exact(finished, tmp_path):
    # By config.json, so that it is also shown that V1's infinite norm survives there.
    whole, _ = finished
    part = tmp_path / "part"
    part.mkdir()
    shutil.copy(whole / "checkpoint_4.pth", part)
    flags = ["--config", whole / "config.json", "--checkpoint-dir", part]
    flags += ["--restore-from", part / "checkpoint_4.pth"]
    assert run_script(main, [str(flag) for flag in flags]) == 0
    for name in WEIGHTS:
        assert (part / name).read_bytes() == (whole / name).read_bytes()
    ours, theirs = (
        torch.load(folder / "latest_checkpoint.pth", weights_only=True) for folder in (part, whole)
    )
    for key in ("discriminator", "discriminator_optimizer", "optimizer", "st_pixels"):
        assert same(ours[key], theirs[key]), key
    for name in ("iteration", "ce", "d_loss", "d_fake", "st_px"):
        assert read_history(part)[-1][name] == read_history(whole)[-1][name]


def same(ours, theirs):
    """Whether nested values are equal, tensors bit for bit."""
    if isinstance(ours, torch.Tensor):
        return torch.equal(ours, theirs)
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(ours[k], theirs[k]) for k in ours)
    if isinstance(ours, list | tuple):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return ours == theirs


def test_flags_win_over_v2(shared_plantation, flags, tmp_path):
    folder = tmp_path / "run"
    extra = ["--v2", "--discriminator-start-iter=5", "--ema-decay=0.5", "--warmup-iters=1"]
    assert train(shared_plantation.root, folder, flags, *extra) == 0
    options = json.loads((folder / "config.json").read_text(encoding="utf-8"))["options"]
    assert options["v2"] is True
    assert options["adversarial"]["st_threshold"] == [0.2, 0.2]
    assert options["adversarial"]["discriminator_start_iter"] == 5
    assert (options["schedule"]["ema_decay"], options["schedule"]["gradient_clip"]) == (0.5, 10)
    rows = {row["iteration"]: row for row in read_history(folder)}
    assert rows["4"]["d_loss"] == ""
    assert float(rows["6"]["d_loss"]) > 0


def test_losses_fall(shared_plantation, flags, tmp_path):
    folder = tmp_path / "run"
    kept = [flag for flag in flags if not flag.startswith(("--num-steps", "--eval-every"))]
    extra = ["--num-steps=30", "--eval-every=30", "--log-every=10"]
    assert train(shared_plantation.root, folder, kept, *extra, "--save-latest-every=30") == 0
    losses = [float(row["ce"]) for row in read_history(folder)]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--st-loss-weight=-1"], "--st-loss-weight -1"),
        (["--fm-loss-weight=-1"], "--fm-loss-weight -1"),
        (["--st-threshold", "-0.1", "0.2"], "--st-threshold -0.1 0.2"),
        (["--backbone=vgg"], "unknown encoder 'vgg'"),
        (["--v2"], "--warmup-iters 1000 is not between 0 and --num-steps 6"),
        (["--grad-accumulation=2"], "--grad-accumulation 2"),
        (["--v2", "--config=some.json"], "leave one of them away"),
    ],
)
def test_wrong_flags_are_one_line(capsys, shared_plantation, flags, tmp_path, extra, words):
    folder = tmp_path / "run"
    assert train(shared_plantation.root, folder, flags, *extra) == 2
    errors = capsys.readouterr().err
    [line] = [line for line in errors.splitlines() if line.startswith("error")]
    assert words in line
    assert "Traceback" not in errors
    assert not list(folder.glob("*.pth"))
