"""Operations against those of a real step, and utilisation by hand."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from experiments.arithmetic import peak_tflops_of, step_flops, utilisation
from ignite_salak.augment import RandomGeometry
from ignite_salak.engines import create_trainer
from ignite_salak.losses import CombinedLoss
from ignite_salak.models.model_file import ModelSpec
from ignite_salak.steps import SelfTrainingStep
from ignite_salak.steps.views import Views

CPU = torch.device("cpu")


def test_the_flops_are_those_of_a_real_step():
    spec = ModelSpec(4, "resnet18", 2, 16, 8)
    torch.manual_seed(0)
    model = spec.build()
    step = SelfTrainingStep(
        model,
        torch.optim.SGD(model.parameters(), lr=0.0),
        CombinedLoss({"ce": 1.0}),
        CombinedLoss({"ce": 1.0}),
        thresholds=[0.0] * 4,
        views=Views(RandomGeometry(), (48, 48), 0),
        start_iteration=1,
    )
    image = torch.randint(1, 256, (2, 3, 32, 32), dtype=torch.uint8)
    mask = torch.randint(0, 4, (2, 32, 32), dtype=torch.uint8)
    batch = {"labeled": {"image": image, "mask": mask}, "unlabeled": {"image": image}}
    with FlopCounterMode(display=False) as counter:
        create_trainer(step).run([batch])
    real = counter.get_total_flops()
    # The step also multiplies four 2 x 2 matrices, of the warps, by a vector.
    assert step_flops(spec, batch_size=2, view=48, patch=32) == real - 4 * 8 > 0


def test_flops_grow_with_the_batch():
    spec = ModelSpec(3, "resnet18", 1, 16, 8)
    assert step_flops(spec, 4, 32, 32) == 2 * step_flops(spec, 2, 32, 32)


def test_utilisation_is_work_over_peak():
    found = utilisation(flops=3e12, seconds=0.02, peak_tflops=600.0)
    assert found["tflop_per_step"] == 3.0
    assert found["tflops"] == pytest.approx(150.0)
    assert found["utilisation"] == pytest.approx(0.25)
    assert utilisation(3e12, 0.02, None)["utilisation"] is None


def test_only_an_h200_in_bf16_has_a_known_peak(monkeypatch):
    assert peak_tflops_of(CPU, "bf16") is None
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    assert peak_tflops_of(torch.device("cuda"), "bf16") == 989.0
    assert peak_tflops_of(torch.device("cuda"), "fp32") is None
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA RTX 4060")
    assert peak_tflops_of(torch.device("cuda"), "bf16") is None
