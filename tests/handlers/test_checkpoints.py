"""Checkpoints: what is saved when, what is refused, what survives."""

import errno

import pytest
import torch
from ignite.engine import Engine, Events

from ignite_salak import files
from ignite_salak.engines import create_trainer
from ignite_salak.handlers import Checkpoints, RunDescription, restore


def make_run(classes=("background", "crop"), seed=0):
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 2)

    def step(engine, batch):
        torch.nn.init.constant_(model.weight, float(engine.state.iteration))
        return {}

    trainer = create_trainer(step)
    state = {
        "run": RunDescription({"class list": list(classes)}, {"seed": seed}),
        "trainer": trainer,
        "model": model,
    }
    return trainer, state


def run(folder, total=10, latest_every=4, periodic_every=5):
    trainer, state = make_run()
    Checkpoints(folder, state, latest_every=latest_every, periodic_every=periodic_every).attach(
        trainer
    )
    trainer.run(range(total), max_epochs=1, epoch_length=total)
    return trainer


@pytest.mark.parametrize(
    ("intervals", "flag"), [((0, 5), "--save-latest-every"), ((5, 0), "--save-pred-every")]
)
def test_bad_intervals_are_refused(tmp_path, intervals, flag):
    with pytest.raises(ValueError, match=flag):
        Checkpoints(tmp_path, {}, latest_every=intervals[0], periodic_every=intervals[1])


def test_files_and_their_iterations(tmp_path):
    run(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint_10.pth",
        "checkpoint_5.pth",
        "latest_checkpoint.pth",
    ]
    for name, iteration in (("checkpoint_5", 5), ("latest_checkpoint", 10)):
        content = torch.load(tmp_path / f"{name}.pth", weights_only=True)
        assert content["trainer"]["iteration"] == iteration
        assert (content["model"]["weight"] == iteration).all()


def test_termination_saves_the_latest(tmp_path):
    trainer, state = make_run()
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=7), lambda: trainer.terminate())
    Checkpoints(tmp_path, state, latest_every=4, periodic_every=50).attach(trainer)
    trainer.run(range(10), max_epochs=1, epoch_length=10)
    assert torch.load(tmp_path / "latest_checkpoint.pth")["trainer"]["iteration"] == 7


def test_restore_continues_where_it_was_also_with_more_iterations(tmp_path):
    run(tmp_path)
    for total in (10, 14):
        trainer, state = make_run()
        seen = []
        trainer.add_event_handler(
            Events.ITERATION_STARTED,
            lambda engine, seen: seen.append(engine.state.iteration),
            seen,
        )
        start = restore(tmp_path / "checkpoint_5.pth", state, total=total, device="cpu")
        assert start == 5
        assert (state["model"].weight == 5).all()
        trainer.run(range(total), max_epochs=1, epoch_length=total)
        assert seen == list(range(6, total + 1))


def test_another_class_list_is_refused_and_nothing_is_loaded(tmp_path):
    run(tmp_path)
    _, state = make_run(classes=("background", "water"))
    before = state["model"].weight.clone()
    with pytest.raises(ValueError, match=r"class list is \['background', 'crop'\]"):
        restore(tmp_path / "latest_checkpoint.pth", state, total=10, device="cpu")
    assert torch.equal(state["model"].weight, before)


def test_a_changed_option_is_named(tmp_path, caplog):
    run(tmp_path)
    _, state = make_run(seed=1)
    restore(tmp_path / "latest_checkpoint.pth", state, total=10, device="cpu")
    assert "--seed 1 instead of 0" in caplog.text


def test_what_is_no_checkpoint_is_refused_in_one_line(tmp_path):
    _, state = make_run()
    missing, text, empty, other = (tmp_path / name for name in ("no", "text", "empty", "other"))
    text.write_text("hello", encoding="utf-8")
    empty.touch()
    torch.save({"weights": {}}, other)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        restore(missing, state, total=10, device="cpu")
    for path, reason in ((text, "damaged"), (empty, "damaged"), (other, "lacks model")):
        with pytest.raises(ValueError, match=reason) as caught:
            restore(path, state, total=10, device="cpu")
        assert "\n" not in str(caught.value)


def test_truncated_checkpoint_is_refused(tmp_path):
    run(tmp_path)
    path = tmp_path / "latest_checkpoint.pth"
    path.write_bytes(path.read_bytes()[:-200])
    _, state = make_run()
    with pytest.raises(ValueError, match="damaged"):
        restore(path, state, total=10, device="cpu")


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    run(tmp_path)
    path = tmp_path / "latest_checkpoint.pth"
    before = path.read_bytes()

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    trainer, state = make_run()
    Checkpoints(tmp_path, state, latest_every=1, periodic_every=50).attach(trainer)
    with pytest.raises(OSError, match="what was there is intact"):
        trainer.run(range(10), max_epochs=1, epoch_length=10)
    assert path.read_bytes() == before
    assert not list(tmp_path.glob("*.tmp"))


def test_state_is_plain(tmp_path):
    description = RunDescription({"architecture": {"backbone": "resnet18"}}, {"seed": 0})
    state = description.state_dict()
    state["fixed"]["architecture"]["backbone"] = "other"
    assert description.fixed["architecture"]["backbone"] == "resnet18"
    with pytest.raises(ValueError, match="options"):
        description.load_state_dict({"fixed": {}})
    assert isinstance(make_run()[0], Engine)
