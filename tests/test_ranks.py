"""Several processes compute what one would."""

import pytest
import torch
from ignite.engine import Events
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from experiments.launch import parallel
from ignite_salak.augment import RandomGeometry
from ignite_salak.data.datasets import PatchDataset
from ignite_salak.data.decoding import MaskReader
from ignite_salak.data.loaders import EvaluationBatches, TrainingStream
from ignite_salak.data.patches import scan_patches
from ignite_salak.engines import create_evaluator, create_trainer
from ignite_salak.handlers import EMAUpdater, GradientClipper, STPixelCounter, TrainingLog
from ignite_salak.losses import CombinedLoss
from ignite_salak.metrics import ClassIoU
from ignite_salak.models.model_file import ModelSpec
from ignite_salak.models.synchronized import synchronize
from ignite_salak.ranks import (
    is_first,
    rank,
    rank_count,
    sum_over_ranks,
    unwrap,
    without_averaging,
)
from ignite_salak.steps import SelfTrainingStep
from ignite_salak.steps.views import Views
from tests.processes import in_two_ranks

STEPS = 6
PARTS = {"ce": 0.4, "dice": 0.4, "focal": 0.2}


class Double(nn.Module):
    """A network in float64, so that only a real difference can be seen."""

    def __init__(self, network):
        super().__init__()
        self.network = network.double()

    def forward(self, images):
        return self.network(images.double())


def train(root, classes):
    """Trains a few steps of V3, then evaluates; returns all that came out."""
    index = scan_patches(root, cache=False)
    labeled = PatchDataset(index, index.has_mask.nonzero()[0], MaskReader(classes))
    stream = TrainingStream(
        labeled, PatchDataset(index, (~index.has_mask).nonzero()[0]), batch_size=4, seed=3
    )
    torch.manual_seed(0)
    spec = ModelSpec(classes.num_classes, "resnet18", 2, 16, 8)
    model = synchronize(Double(spec.build(pretrained=False)), torch.device("cpu"))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    step = SelfTrainingStep(
        parallel(model, torch.device("cpu")),
        optimizer,
        CombinedLoss(PARTS, torch.linspace(0.5, 2.0, classes.num_classes)),
        CombinedLoss(PARTS),
        thresholds=[0.16] * classes.num_classes,
        views=Views(RandomGeometry(), (32, 48), seed=3),
        start_iteration=3,
    )
    trainer = create_trainer(step, seed=3)
    GradientClipper(model, 1.0).attach(trainer)
    ema = EMAUpdater(model, 0.9)
    ema.attach(trainer)
    counter = STPixelCounter(classes.names)
    counter.attach(trainer)
    TrainingLog(1).attach(trainer)
    curve = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: curve.append(dict(engine.state.output))
    )
    trainer.run(stream, max_epochs=1, epoch_length=STEPS)
    scores = ClassIoU(classes.names)
    evaluator = create_evaluator(ema.model, {"scores": scores})
    batches = EvaluationBatches(labeled, batch_size=3)
    evaluator.run(batches)
    return {
        "curve": curve,
        "totals": counter.totals,
        "weights": ema.model.state_dict(),
        "confusion": scores.total,
        "scores": scores.result,
        "judged": len(batches),
    }


def test_one_process_is_rank_0_of_1():
    values = torch.arange(3.0)
    model = nn.Linear(2, 2)
    assert (rank(), rank_count(), is_first()) == (0, 1, True)
    assert sum_over_ranks(values) is values
    assert unwrap(model) is model
    with without_averaging(model):
        pass


def sums():
    values = torch.tensor([1.0, 2.0], requires_grad=True)
    scaled = values * (1 + rank())  # the sum over ranks is 3 * values
    (sum_over_ranks(scaled) ** 2).sum().backward()
    model = DistributedDataParallel(nn.Linear(1, 1))
    with without_averaging(model):
        model(torch.full((1, 1), float(rank()))).sum().backward()
    apart = unwrap(model).weight.grad.clone()
    counts = sum_over_ranks(torch.tensor([[rank(), 1]]))
    return {"who": (rank(), rank_count(), is_first()), "gradient": values.grad} | {
        "apart": apart,
        "counts": counts,
    }


def test_sums_and_their_gradients(tmp_path):
    found = in_two_ranks(sums, tmp_path)
    assert [one["who"] for one in found] == [(0, 2, True), (1, 2, False)]
    for number, one in enumerate(found):
        assert one["counts"].tolist() == [[1, 2]]
        assert one["apart"].item() == number  # not averaged
    # d/dv of (3 v)^2 is 18 v; the mean of the ranks' gradients is that.
    mean = torch.stack([one["gradient"] for one in found]).mean(0)
    assert mean.tolist() == [18.0, 36.0]


def test_two_processes_train_as_one(tmp_path, plantation):
    alone = train(plantation.root, plantation.classes)
    first, second = in_two_ranks(train, tmp_path, plantation.root, plantation.classes)
    assert len(alone["curve"]) == STEPS
    assert alone["curve"][-1]["st_px"] > 0
    assert alone["curve"][-1]["disagreement"] > 0
    for expected, *found in zip(alone["curve"], first["curve"], second["curve"], strict=True):
        for output in found:
            assert output.keys() == expected.keys()
            for name, value in expected.items():
                assert torch.as_tensor(output[name]).tolist() == pytest.approx(
                    torch.as_tensor(value).tolist(), rel=1e-5, abs=1e-7
                ), name
    for name, value in alone["weights"].items():
        for other in (first, second):
            assert torch.allclose(other["weights"][name], value, rtol=1e-4, atol=1e-7), name
    for other in (first, second):
        assert torch.equal(other["totals"], alone["totals"])
        assert torch.equal(other["confusion"], alone["confusion"])
        assert other["scores"] == pytest.approx(alone["scores"], nan_ok=True)
    assert (alone["judged"], first["judged"], second["judged"]) == (22, 11, 11)
