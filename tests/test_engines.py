"""The engines: randomness addressed by iteration, evaluation without side effects."""

import torch
from ignite.engine import Events

from ignite_salak.engines import create_evaluator, create_trainer
from ignite_salak.metrics import ClassIoU


def draws(seed, start=0, total=4, disturb=False):
    seen = []

    def step(engine, batch):
        seen.append(torch.rand(()).item())
        if disturb:
            torch.rand(17)
        return {}

    trainer = create_trainer(step, seed=seed)
    trainer.load_state_dict({"iteration": start, "epoch_length": total, "max_epochs": 1})
    trainer.run(range(total), max_epochs=1, epoch_length=total)
    return seen


def test_randomness_is_a_function_of_seed_and_iteration():
    whole = draws(seed=0)
    assert len(set(whole)) == 4
    assert draws(seed=0, disturb=True) == whole
    assert draws(seed=0, start=2) == whole[2:]
    assert draws(seed=1) != whole


def test_the_evaluator_votes_without_dropout_or_gradients():
    class Heads(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.dropout = torch.nn.Dropout(0.5)
            self.bias = torch.nn.Parameter(torch.tensor([[3.0, 0.0], [0.0, 1.0]]))

        def forward(self, images):
            self.images = images
            return self.dropout(self.bias)[:, None, :, None, None].expand(
                2, len(images), 2, *images.shape[-2:]
            )

    model = Heads()
    evaluator = create_evaluator(model, {"scores": ClassIoU(("background", "crop"))})
    outputs = []
    evaluator.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: outputs.append(engine.state.output)
    )
    batch = {
        "image": torch.full((1, 3, 5, 7), 255, dtype=torch.uint8),
        "mask": torch.zeros(1, 5, 7, dtype=torch.uint8),
    }
    state = evaluator.run([batch] * 5)
    # Head 0 is sure of the background, head 1 leans to the crop: the mean is for the background.
    assert all((output["pred"] == 0).all() for output in outputs)
    assert all(output["pred"].shape == (1, 5, 7) for output in outputs)
    assert state.metrics["scores"]["accuracy"] == 1.0
    assert model.images.max() == 1.0
    assert all(torch.equal(output["label"], output["pred"]) for output in outputs)


def test_shifted_votes_make_labels_but_no_map():
    class Sure(torch.nn.Module):
        def forward(self, images):
            probabilities = torch.tensor([0.6, 0.3, 0.1])[None, None, :, None, None]
            return probabilities.log().expand(1, len(images), 3, *images.shape[-2:])

    evaluator = create_evaluator(Sure(), {}, shift=lambda found: found.flip(1))
    batch = {
        "image": torch.full((1, 3, 5, 7), 255, dtype=torch.uint8),
        "mask": torch.zeros(1, 5, 7, dtype=torch.uint8),
    }
    output = evaluator.run([batch]).output
    assert (output["pred"] == 0).all()
    assert (output["label"] == 2).all()
    torch.testing.assert_close(output["confidence"], torch.full((1, 5, 7), 0.6))
