"""The same few patches at every evaluation."""

import ignite.distributed as idist
import numpy as np
import pytest
import torch
from ignite.engine import Events
from PIL import Image
from torch import nn

from ignite_salak import files
from ignite_salak.engines import create_trainer
from ignite_salak.events import TrainingEvents
from ignite_salak.handlers import EvaluationResult, Gallery, Panels
from ignite_salak.pictures import WRONG, dim

SIZE = 128
LEFT = 25  # of the first tile: margin and outline
STEP = SIZE + 2 + 10


class Redness(nn.Module):
    """Class 1 where the image is red, class 2 where it is blue, else class 0; surer if bright."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(10.0))
        self.dropout = nn.Dropout(0.5)
        self.norm = nn.BatchNorm2d(3)
        self.calls = 0

    def forward(self, images):
        self.calls += 1
        red, green, blue = self.dropout(self.norm(images)).unbind(dim=1)
        return (self.gain * torch.stack([green, red, blue], dim=1))[None]


def item(color, mask=None, size=(SIZE, SIZE)):
    image = torch.tensor(color, dtype=torch.uint8).view(3, 1, 1).expand(3, *size).contiguous()
    if mask is None:
        return {"image": image}
    return {"image": image, "mask": torch.full(size, mask, dtype=torch.uint8)}


class Counted(list):
    """Counts reads."""

    reads = 0

    def __getitem__(self, position):
        self.reads += 1
        return super().__getitem__(position)


def gallery(*items):
    return Gallery(Counted(items), [f"patch_{number}" for number in range(len(items))])


def evaluate(panels, iteration=500):
    trainer = create_trainer(lambda engine, batch: {})
    trainer.state.evaluation = EvaluationResult(iteration, {}, {})
    panels.attach(trainer)
    trainer.fire_event(TrainingEvents.EVALUATED)
    return trainer.state.evaluation.pictures


def make(folder, classes, validation=None, unlabeled=None, **options):
    model = options.pop("model", None) or Redness().eval()
    return Panels(model, classes, folder, validation=validation, unlabeled=unlabeled, **options)


def tiles(picture, columns, row=0):
    """The pixel in the middle of every tile of a row, found by the outlines of the first column."""
    outline = (picture[:, LEFT - 1 : LEFT + SIZE + 1] == 150).all(axis=(1, 2))
    top = np.flatnonzero(outline)[2 * row] + 1 + SIZE // 2
    return [tuple(picture[top, LEFT + STEP * i + SIZE // 2].tolist()) for i in range(columns)]


def grey(*color):
    return tuple(dim(np.array([[color]], dtype=np.uint8))[0, 0].tolist())


def test_thresholds_must_fit_the_classes(tmp_path, classes):
    with pytest.raises(ValueError, match="2 thresholds for 3 classes"):
        make(tmp_path, classes, thresholds=[0.5, 0.5])


def test_validation_rows_show_truth_prediction_and_errors(tmp_path, classes):
    validation = gallery(item((200, 0, 0), mask=1), item((0, 0, 200), mask=1))
    picture = evaluate(make(tmp_path, classes, validation))["validation"]
    water, road = classes.colors[1:]
    right, wrong = tiles(picture, 5), tiles(picture, 5, row=1)
    assert right[:3] == [(200, 0, 0), water, water]
    assert right[4] == grey(200, 0, 0)
    assert wrong[:3] == [(0, 0, 200), water, road]
    assert wrong[4] == WRONG


def test_confidence_is_that_of_the_prediction(tmp_path, classes):
    sure, unsure = item((255, 0, 0), mask=1), item((10, 9, 9), mask=1)
    picture = evaluate(make(tmp_path, classes, gallery(sure, unsure)))["validation"]
    bright, dark = tiles(picture, 5)[3], tiles(picture, 5, row=1)[3]
    assert bright == (253, 231, 36)
    # One third of the colour scale: three classes, none preferred by much.
    assert dark[2] > 120 > dark[0]


def test_unlabelled_rows_show_what_the_labelling_model_keeps(tmp_path, classes):
    labeler, model = Redness().eval(), Redness().eval()
    model.gain.data.neg_()
    unlabeled = gallery(item((255, 0, 0)), item((10, 9, 9)), item((0, 255, 0)), item((0, 0, 0)))
    thresholds = [0.0, 0.9, 0.9]
    panels = make(
        tmp_path, classes, None, unlabeled, model=model, labeler=labeler, thresholds=thresholds
    )
    picture = evaluate(panels)["unlabeled"]
    background, water, _ = classes.colors
    assert tiles(picture, 4)[::3] == [(255, 0, 0), water]
    assert tiles(picture, 4, row=1)[1::2] == [water, grey(10, 9, 9)]
    assert tiles(picture, 4, row=2)[1::2] == [background, grey(0, 255, 0)]
    assert tiles(picture, 4, row=3)[3] == grey(0, 0, 0)
    assert (panels.model.calls, labeler.calls) == (0, 4)


def test_without_thresholds_the_evaluated_model_predicts_and_nothing_is_kept(tmp_path, classes):
    labeler = Redness()
    unlabeled = gallery(item((255, 0, 0)))
    panels = make(tmp_path, classes, unlabeled=unlabeled, labeler=labeler)
    picture = evaluate(panels)["unlabeled"]
    assert tiles(picture, 4)[3] == (255, 255, 255)
    assert (panels.model.calls, labeler.calls) == (1, 0)


def test_files_are_the_pictures(tmp_path, classes):
    validation, unlabeled = gallery(item((200, 0, 0), mask=1)), gallery(item((0, 0, 200)))
    pictures = evaluate(make(tmp_path / "panels", classes, validation, unlabeled), 1_234_567)
    assert set(pictures) == {"validation", "unlabeled"}
    files_ = {path.name: path for path in (tmp_path / "panels").iterdir()}
    assert set(files_) == {"validation_1234567.png", "unlabeled_1234567.png"}
    for name, picture in pictures.items():
        with Image.open(files_[f"{name}_1234567.png"]) as image:
            assert np.array_equal(np.asarray(image), picture)


def test_a_resumed_run_overwrites(tmp_path, classes):
    validation = gallery(item((200, 0, 0), mask=1))
    path = tmp_path / "validation_000500.png"
    path.write_bytes(b"old")
    evaluate(make(tmp_path, classes, validation))
    assert path.read_bytes().startswith(b"\x89PNG")


def test_patches_are_read_once_and_not_before_the_first_evaluation(tmp_path, classes):
    validation, unlabeled = gallery(item((200, 0, 0), mask=1)), gallery(item((0, 0, 200)))
    panels = make(tmp_path, classes, validation, unlabeled)
    assert validation.patches.reads == unlabeled.patches.reads == 0
    evaluate(panels, 500)
    evaluate(panels, 1000)
    assert validation.patches.reads == unlabeled.patches.reads == 1


def test_bad_files_are_left_out(tmp_path, classes):
    good = item((0, 0, 200))
    unlabeled = gallery({"bad_file": "broken"}, good, {**item((255, 0, 0)), "bad_file": "broken"})
    alone = Gallery([good], ["patch_1"])
    picture = evaluate(make(tmp_path, classes, unlabeled=unlabeled))["unlabeled"]
    expected = evaluate(make(tmp_path, classes, unlabeled=alone))["unlabeled"]
    assert np.array_equal(picture, expected)
    only_bad = gallery({"bad_file": "broken"})
    assert evaluate(make(tmp_path, classes, unlabeled=only_bad)) == {}


def test_patches_that_are_mostly_padding_are_shown_only_where_nothing_else_is_left():
    full, padded = item((9, 9, 9)), item((9, 9, 9))
    padded["image"][:, :, SIZE // 2 - 1 :] = 0
    items, names = [padded, full, padded, full], ["a", "b", "c", "d"]
    assert [name for name, _ in Gallery(items, names, 2).read()] == ["b", "d"]
    assert [name for name, _ in Gallery(items, names, 3).read()] == ["b", "d", "a"]
    assert len(Gallery(items, names).read()) == 4


def test_patches_of_different_sizes(tmp_path, classes):
    validation = gallery(item((9, 9, 9), 0, (300, 200)), item((9, 9, 9), 255, (1, 17)))
    assert evaluate(make(tmp_path, classes, validation))["validation"].shape[1] > 640


def test_a_file_that_cannot_be_written_is_one_warning(tmp_path, classes, caplog, monkeypatch):
    monkeypatch.setattr(files, "_RENAME_PAUSE", 0.0)
    validation = gallery(item((200, 0, 0), mask=1))
    (tmp_path / "validation_000500.png").mkdir()
    assert set(evaluate(make(tmp_path, classes, validation))) == {"validation"}
    assert len(caplog.records) == 1
    assert "validation_000500.png" in caplog.text
    (tmp_path / "file").write_bytes(b"")
    assert set(evaluate(make(tmp_path / "file", classes, validation))) == {"validation"}
    assert len(caplog.records) == 2


def test_only_the_first_process_draws(tmp_path, classes, monkeypatch):
    monkeypatch.setattr(idist, "get_rank", lambda: 1)
    assert evaluate(make(tmp_path / "panels", classes, gallery(item((9, 9, 9), 0)))) == {}
    assert list(tmp_path.iterdir()) == []


def test_frozen_modules_stay_frozen_while_the_others_train(tmp_path, classes):
    labeler = Redness().train()
    labeler.norm.eval()
    unlabeled = gallery(item((0, 0, 200)))
    evaluate(make(tmp_path, classes, unlabeled=unlabeled, labeler=labeler, thresholds=[0.5] * 3))
    modes = labeler.training, labeler.dropout.training, labeler.norm.training
    assert modes == (True, True, False)
    assert labeler.norm.num_batches_tracked == 0


def train(tmp_path, classes, panels):
    """Five steps of a model with dropout and BatchNorm, drawn in the middle of each."""
    torch.manual_seed(0)
    model = Redness().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    image = torch.rand(2, 3, 8, 8)

    def step(engine, batch):
        first = model(image).square().mean()
        engine.state.evaluation = EvaluationResult(engine.state.iteration, {}, {})
        engine.fire_event(TrainingEvents.EVALUATED)
        loss = first + model(image + 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"loss": loss.detach()}

    trainer = create_trainer(step)
    losses = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: losses.append(engine.state.output["loss"].item())
    )
    if panels:
        make(
            tmp_path,
            classes,
            gallery(item((200, 0, 0), mask=1)),
            gallery(item((0, 0, 200))),
            model=model,
            labeler=model,
            thresholds=[0.5] * 3,
        ).attach(trainer)
    trainer.run(range(5), max_epochs=1, epoch_length=5)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    return losses, state, torch.rand(3), np.random.random()


def test_training_is_bit_identical_with_and_without(tmp_path, classes):
    np.random.seed(0)
    losses, state, after, numpy_after = train(tmp_path, classes, False)
    np.random.seed(0)
    drawn, drawn_state, drawn_after, drawn_numpy = train(tmp_path, classes, True)
    assert len(list(tmp_path.glob("*.png"))) == 10
    assert np.isfinite(losses).all()
    assert drawn == losses
    assert all(torch.equal(drawn_state[name], value) for name, value in state.items())
    assert torch.equal(drawn_after, after)
    assert drawn_numpy == numpy_after
