"""The averaged model."""

import pytest
import torch
from torch import nn

from ignite_salak.engines import create_trainer
from ignite_salak.events import TrainingEvents
from ignite_salak.handlers import EMAUpdater, ema_decay


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


@pytest.mark.parametrize("decay", [-0.1, 1.0, 1.5])
def test_a_bad_decay_is_refused(decay):
    with pytest.raises(ValueError, match="--ema-decay"):
        EMAUpdater(network(), decay)


def test_the_ramp_is_a_plain_mean_at_first():
    assert [ema_decay(t, 0.9995) for t in (0, 1, 3)] == [0.0, 0.5, 0.75]
    assert ema_decay(10**6, 0.9995) == 0.9995
    model = nn.Linear(1, 1, bias=False)
    ema = EMAUpdater(model, 0.9995)
    for value in (1.0, 2.0, 6.0):
        nn.init.constant_(model.weight, value)
        ema.update()
    assert ema.model.weight.item() == pytest.approx(3.0)


def test_initial_weights_do_not_linger():
    # The first V3: decay 0.9995 without a ramp leaves 0.78 of the initial weights after 500 steps.
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 100.0)
    ema = EMAUpdater(model, 0.9995)
    nn.init.constant_(model.weight, 0.0)
    for _ in range(500):
        ema.update()
    assert ema.model.weight.item() == 0.0


def test_float_buffers_are_averaged_and_integers_copied():
    model = network()
    ema = EMAUpdater(model, 0.9)
    generator = torch.Generator().manual_seed(0)
    expected = None
    for step in range(20):
        model(torch.randn(4, 3, 5, 5, generator=generator) + step)
        ema.update()
        mean, decay = model[1].running_mean.clone(), ema_decay(step, 0.9)
        expected = mean if expected is None else decay * expected + (1 - decay) * mean
    assert torch.allclose(ema.model[1].running_mean, expected, atol=1e-5)
    assert not torch.allclose(ema.model[1].running_mean, model[1].running_mean)
    assert ema.model[1].num_batches_tracked == 20


def test_shares_no_memory_with_the_student_even_after_loading():
    model = network()
    ema = EMAUpdater(model)
    ema.update()
    ema.load_state_dict(ema.state_dict())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for value in ema.model.state_dict().values():
        value.add_(1)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert not ema.model.training
    assert not any(parameter.requires_grad for parameter in ema.model.parameters())


def test_state_restores_ramp_and_weights():
    model = network()
    ema = EMAUpdater(model, 0.9)
    for _ in range(5):
        model(torch.randn(4, 3, 5, 5))
        ema.update()
    other = EMAUpdater(network(), 0.9)
    other.load_state_dict(ema.state_dict())
    assert other.updates == 5
    for name, value in ema.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name])
    with pytest.raises(ValueError, match="updates"):
        other.load_state_dict({"model": {}})


def test_updates_after_the_optimizer_step_and_reports_its_decay():
    model = nn.Linear(1, 1, bias=False)

    def step(engine, batch):
        nn.init.constant_(model.weight, float(engine.state.iteration))
        engine.fire_event(TrainingEvents.OPTIMIZER_STEPPED)
        return {}

    trainer = create_trainer(step)
    ema = EMAUpdater(model, 0.9)
    ema.attach(trainer)
    trainer.run(range(3))
    assert ema.updates == 3
    assert ema.model.weight.item() == pytest.approx(2.0)
    assert trainer.state.output["ema_decay"] == pytest.approx(2 / 3)


def test_loading_into_either_model_after_the_first_update_is_seen():
    model = network()
    ema = EMAUpdater(model, 0.5)
    ema.update()
    ema.load_state_dict({"model": {**ema.model.state_dict()}, "updates": 9})
    old = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    new = {name: torch.full_like(value, 8) for name, value in model.state_dict().items()}
    ema.load_state_dict({"model": old, "updates": 9})
    model.load_state_dict(new)
    ema.update()
    for name, value in ema.model.state_dict().items():
        assert (value == (8 if name.endswith("num_batches_tracked") else 4)).all(), name
    assert ema.updates == 10


def test_models_may_be_moved_before_the_first_update():
    model = nn.Linear(2, 2)
    ema = EMAUpdater(model, 0.5)
    model.double()
    ema.model.double()
    nn.init.constant_(model.weight, 3.0)
    ema.update()
    assert ema.model.weight.dtype == torch.float64
    assert (ema.model.weight == 3.0).all()


def test_models_are_walked_through_once(monkeypatch):
    model = network()
    ema = EMAUpdater(model)
    walks = []
    walk = nn.Module.state_dict
    monkeypatch.setattr(
        nn.Sequential, "state_dict", lambda self: walks.append(1) or walk(self), raising=False
    )
    for _ in range(3):
        ema.update()
    assert len(walks) == 2
