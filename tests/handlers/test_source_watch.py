"""What is seen on unlabelled source images, without masks."""

import csv
import logging

import pytest
import torch
from torch import nn

from ignite_salak import files
from ignite_salak.engines import create_trainer
from ignite_salak.events import TrainingEvents
from ignite_salak.handlers import EvaluationResult, SourceWatch

NAMES = ("background", "water", "crop")
SOURCES = ("field/a", "field/b", "field/c")


class Brightness(nn.Module):
    """Class 1 where the image is darker than the limit, else class 2."""

    def __init__(self, limit):
        super().__init__()
        self.limit = limit
        self.anchor = nn.Parameter(torch.zeros(()))

    def forward(self, images):
        dark = (images[:, 0] < self.limit).float()
        return torch.stack([torch.zeros_like(dark), dark, 1 - dark], dim=1)[None]


def patches(*greys, source):
    """One patch of four columns, grey as given."""
    row = torch.tensor(greys, dtype=torch.uint8)
    return {
        "image": row.expand(1, 3, len(greys), len(greys)),
        "source": torch.tensor([source]),
    }


BATCHES = [
    patches(100, 100, 100, 200, source=0),
    patches(0, 100, 200, 200, source=2),  # the black column is padding
    patches(100, 100, 100, 100, source=2),
]


def make(path, limit=0.5, batches=BATCHES, start=0):
    model = Brightness(limit).train()
    watch = SourceWatch(model, batches, SOURCES, NAMES, path)
    trainer = create_trainer(lambda engine, batch: {})
    watch.attach(trainer)
    trainer.load_state_dict({"iteration": start, "epoch_length": start + 1, "max_epochs": 1})
    trainer.run(range(start + 1), max_epochs=1, epoch_length=start + 1)
    return watch, trainer


def evaluate(trainer, iteration):
    trainer.state.evaluation = EvaluationResult(iteration, {"mIoU": 0.5}, {"mIoU": 0.5})
    trainer.fire_event(TrainingEvents.EVALUATED)
    return trainer.state.evaluation.changes


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_shares_by_source_image_and_how_they_changed(tmp_path):
    path = tmp_path / "source_classes.csv"
    watch, trainer = make(path)
    assert [change.share for change in evaluate(trainer, 500)] == [0.0, 0.0]
    watch.model.limit = 0.2  # everything is crop now
    largest, other = evaluate(trainer, 1000)
    assert (largest.source, largest.share) == ("field/a", 0.75)
    assert (largest.lost, largest.gained, largest.since) == ("water", "crop", 500)
    assert (other.source, other.share) == ("field/c", pytest.approx(20 / 28))
    rows = read(path)
    assert [(row["iteration"], row["source"]) for row in rows] == [
        ("500", "field/a"),
        ("500", "field/c"),
        ("1000", "field/a"),
        ("1000", "field/c"),
    ]
    assert [row["share/water"] for row in rows] == ["0.750000", "0.714286", "0.000000", "0.000000"]
    assert rows[1]["share/background"] == "0.000000"  # padding is no class
    assert [row["changed"] for row in rows] == ["0.000000", "0.000000", "0.750000", "0.714286"]


def test_the_earlier_evaluation_that_differs_most_is_compared_with(tmp_path):
    path = tmp_path / "source_classes.csv"
    watch, trainer = make(path)
    found = []
    for iteration, limit in ((1, 0.2), (2, 0.5), (3, 0.9), (4, 0.5)):
        watch.model.limit = limit
        change = next(c for c in evaluate(trainer, iteration) if c.source == "field/a")
        found.append((change.share, change.gained, change.since))
    assert found == [
        (0.0, "background", 1),  # nothing to compare with
        (0.75, "water", 1),
        (1.0, "water", 1),
        (0.75, "water", 1),  # from 3 it differs by 0.25 alone
    ]
    last = read(path)[-2]
    assert (last["source"], last["changed"], last["since"]) == ("field/a", "0.750000", "1")


def test_a_resumed_run_compares_with_earlier_evaluations_and_drops_later_rows(tmp_path):
    path = tmp_path / "source_classes.csv"
    _, trainer = make(path)
    for iteration in (500, 1000, 1500):
        evaluate(trainer, iteration)
    _, trainer = make(path, limit=0.2, start=1000)
    largest = evaluate(trainer, 1500)[0]
    assert (largest.source, largest.share, largest.since) == ("field/a", 0.75, 500)
    assert [row["iteration"] for row in read(path)] == ["500", "500"] + 2 * ["1000"] + 2 * ["1500"]


def test_a_new_run_begins_a_new_file(tmp_path):
    path = tmp_path / "source_classes.csv"
    evaluate(make(path)[1], 500)
    evaluate(make(path, limit=0.2)[1], 250)
    assert [row["iteration"] for row in read(path)] == ["250", "250"]


@pytest.mark.parametrize("text", ["iteration;source\n500;a\n", "iteration,source\n500,field/a\n"])
def test_a_file_that_another_program_spoilt_is_begun_anew(tmp_path, caplog, text):
    path = tmp_path / "source_classes.csv"
    path.write_text(text, encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        _, trainer = make(path, start=1000)
    assert "source_classes.csv is damaged" in caplog.text
    assert evaluate(trainer, 1500)[0].since == 1500


def test_an_open_file_does_not_stop_training(tmp_path, monkeypatch, caplog):
    path = tmp_path / "source_classes.csv"
    _, trainer = make(path)

    def refuse(*_):
        raise PermissionError("in use")

    with monkeypatch.context() as patch:
        patch.setattr(files, "_rename", refuse)
        evaluate(trainer, 500)
    assert "open in another program" in caplog.text
    evaluate(trainer, 1000)
    assert len(read(path)) == 4


def test_no_random_number_is_drawn(tmp_path):
    _, trainer = make(tmp_path / "source_classes.csv")
    before = torch.get_rng_state()
    evaluate(trainer, 500)
    assert torch.equal(torch.get_rng_state(), before)
