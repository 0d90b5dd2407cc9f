"""Between two log points the host never waits for the GPU.

Where there is no GPU, its tensors are torch's fake ones, which have a device but no memory: every
operation on them is looked at before it runs.
"""

import signal

import pytest
import torch
from ignite.engine import Events
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ignite_salak.alignment import DistributionAlignment
from ignite_salak.augment import ClassConfidence, RandomColors, RandomGeometry
from ignite_salak.data.device_batches import DeviceBatches
from ignite_salak.engines import create_trainer
from ignite_salak.handlers import (
    Checkpoints,
    EMAUpdater,
    GracefulStop,
    GradientClipper,
    Health,
    History,
    ProgressBar,
    STPixelCounter,
    TrainingLog,
    WarmupCosine,
)
from ignite_salak.losses import CombinedLoss
from ignite_salak.metrics import ClassIoU
from ignite_salak.steps import MeanTeacherStep, SelfTrainingStep
from ignite_salak.steps.device import image_to_device
from ignite_salak.steps.strong_views import StrongViews
from ignite_salak.steps.views import Views
from ignite_salak.symmetry import RandomSymmetries
from ignite_salak.thresholds import QuantileThresholds

# torch's own copy.deepcopy asks fake tensors: https://github.com/pytorch/pytorch
pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")

NAMES = ("background", "water", "road")
WAITS = {
    torch.ops.aten._linalg_check_errors,
    torch.ops.aten._local_scalar_dense,
    torch.ops.aten.bincount,
    torch.ops.aten.equal,
    torch.ops.aten.is_nonzero,
    torch.ops.aten.masked_select,
    torch.ops.aten.nonzero,
    torch.ops.aten._unique2,
    torch.ops.aten.unique_consecutive,
    torch.ops.aten.unique_dim,
}
INDEXING = (torch.ops.aten.index, torch.ops.aten.index_put_, torch.ops.aten.index_put)
COPIES = (torch.ops.aten._to_copy, torch.ops.aten.copy_)


class Waits(AssertionError):
    pass


def tensors(*values):
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


def waits(func, args):
    """Says why an operation lets the host wait for the GPU that holds its tensors, or None."""
    if func.overloadpacket in WAITS:
        return "its result is a number on the host, or as long as the data says"
    if func.overloadpacket in INDEXING and any(t.dtype == torch.bool for t in tensors(args[1])):
        return "a mask picks as many values as the data says"
    return None


class Watch(TorchDispatchMode):
    """Stops at an operation that waits; ``fake`` tells GPU tensors by their fakeness."""

    def __init__(self, fake=True):
        super().__init__()
        self.fake = fake
        self.strict = not fake
        self.pinned = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if self.fake and func.overloadpacket is torch.ops.aten._pin_memory:
            with unset_fake_temporarily():
                copy = args[0].clone()
            self.pinned.add(copy.data_ptr())
            return copy
        on_gpu = any(isinstance(t, FakeTensor) and t.is_cuda for t in tensors(args, kwargs))
        if self.strict and (on_gpu or not self.fake):
            reason = waits(func, args)
            if reason:
                raise Waits(f"{func}: {reason}")
        to_gpu = str(kwargs.get("device")).startswith("cuda")
        if self.strict and func.overloadpacket in COPIES:
            self._check_copy(func, args, kwargs)
        if on_gpu or to_gpu or not self.fake:
            return func(*args, **kwargs)
        with unset_fake_temporarily():
            return func(*args, **kwargs)

    def _check_copy(self, func, args, kwargs):
        source = args[-1] if func.overloadpacket is torch.ops.aten.copy_ else args[0]
        target = kwargs.get("device", args[0].device)
        moved = isinstance(source, torch.Tensor) and source.device.type != target.type
        if moved and not (kwargs.get("non_blocking") and source.data_ptr() in self.pinned):
            raise Waits(f"{func}: a copy from {source.device} to {target} that waits")


@pytest.fixture
def gpu(monkeypatch):
    """Pretends that there is a GPU; gives what looks at everything done to it."""
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    watch = Watch()
    with FakeTensorMode(allow_non_fake_inputs=True), watch:
        yield watch


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.heads = nn.ModuleList(nn.Conv2d(4, len(NAMES), 1) for _ in range(2))

    def forward(self, images):
        features = nn.functional.dropout2d(self.trunk(images), 0.2, self.training)
        size = images.shape[-2:]
        return torch.stack(
            [nn.functional.interpolate(h(features), size, mode="bilinear") for h in self.heads]
        )


def batches(count, pin=True):
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        images = torch.randint(0, 256, (2, 2, 3, 32, 32), generator=generator, dtype=torch.uint8)
        mask = torch.randint(0, 3, (2, 32, 32), generator=generator, dtype=torch.uint8)
        tensors = [t.clone() for t in (images[0], mask, images[1])]
        image, mask, unlabeled = (t.pin_memory() for t in tensors) if pin else tensors
        yield {"labeled": {"image": image, "mask": mask}, "unlabeled": {"image": unlabeled}}


def v3_step(model, ema, optimizer, loss, **options):
    return SelfTrainingStep(
        model, optimizer, *loss, thresholds=(0.3,) * len(NAMES), start_iteration=2, **options
    )


def v4_step(model, ema, optimizer, loss, **options):
    device = options["device"]
    return MeanTeacherStep(
        model,
        ema.model,
        optimizer,
        loss[0],
        thresholds=QuantileThresholds(len(NAMES), ramp=100, device=device),
        strong=StrongViews(0, RandomColors(), 0.5, ClassConfidence(len(NAMES), device=device)),
        alignment=DistributionAlignment(torch.ones(len(NAMES)), device=device),
        turning=RandomSymmetries(0, 2),
        doubt=True,
        **options,
    )


def make_trainer(device, folder, log_every=100, make_step=v3_step):
    """A recipe as its script composes it, with every handler that runs in every iteration."""
    with torch.device(device):
        model = TwoHeads()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)
    weights = {"ce": 1.0, "dice": 0.5, "focal": 0.5}
    loss = (
        CombinedLoss(weights, torch.tensor([1.0, 2.0, 3.0])).to(device),
        CombinedLoss(weights).to(device),
    )
    ema = EMAUpdater(model)
    views = Views(RandomGeometry(turns=True), (32, 64), 0)
    step = make_step(model, ema, optimizer, loss, views=views, device=device)
    trainer = create_trainer(step, seed=0)
    WarmupCosine(optimizer, warmup=2, total=100).attach(trainer)
    GradientClipper(model, 1.0).attach(trainer)
    ema.attach(trainer)
    STPixelCounter(NAMES, device).attach(trainer)
    TrainingLog(log_every, device).attach(trainer)
    ProgressBar(disable=True).attach(trainer)
    History(folder / "history.csv").attach(trainer)
    Health(NAMES).attach(trainer)
    GracefulStop().attach(trainer)
    Checkpoints(folder, {"trainer": trainer}, latest_every=100, periodic_every=100).attach(trainer)
    return trainer


def train(trainer, data, iterations=3, begin=lambda: None):
    """Runs some iterations, ``begin`` called behind the first, and stops in the midst."""
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=1), begin)
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=iterations), trainer.terminate)
    trainer.run(data, max_epochs=1, epoch_length=100)


@pytest.fixture(autouse=True)
def own_signals():
    """``GracefulStop`` listens to the end of a run, which an error leaves open."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def no_backward(monkeypatch):
    """Fake gradients: autograd's engine wants a real GPU. Its operations have their own test."""

    def give(trainer):
        parameters = list(trainer._process_function.model.parameters())

        def backward(self):
            for parameter in parameters:
                parameter.grad = torch.zeros_like(parameter)

        monkeypatch.setattr(torch.Tensor, "backward", backward)

    return give


@pytest.mark.parametrize("make_step", [v3_step, v4_step])
def test_a_training_step_with_all_its_handlers_never_waits(gpu, no_backward, tmp_path, make_step):
    trainer = make_trainer("cuda", tmp_path, make_step=make_step)
    no_backward(trainer)
    data = list(batches(4))
    gpu.strict = True
    train(trainer, data)
    assert trainer.state.iteration == 3
    output = trainer.state.output
    assert {"loss", "st", "grad_norm", "ema_decay", "st_px/road"} <= set(output)
    assert output["loss"].device.type == "cuda"
    assert isinstance(output["st_px"], FakeTensor)


def test_logging_waits_and_is_found(gpu, no_backward, tmp_path):
    trainer = make_trainer("cuda", tmp_path, log_every=2)
    no_backward(trainer)
    data = list(batches(4))
    gpu.strict = True
    with pytest.raises(Waits, match=r"_to_copy|_local_scalar_dense"):
        train(trainer, data)
    assert trainer.state.iteration == 2


def test_memory_that_is_not_page_locked_waits_and_is_found(gpu, tmp_path):
    trainer = make_trainer("cuda", tmp_path)
    data = list(batches(1, pin=False))
    gpu.strict = True
    with pytest.raises(Waits, match="from cpu to cuda"):
        train(trainer, data)


@pytest.mark.parametrize(
    "wait",
    [
        lambda value: value.item(),
        lambda value: bool(value > 0),
        lambda value: value[None][value[None] > 0],
        lambda value: torch.linalg.inv(value.expand(2, 2)),
        lambda value: torch.bincount(value[None].long()),
        lambda value: torch.tensor([1.0], device=value.device),
        lambda value: value + torch.ones(1).to(value.device),
        lambda value: value.cpu(),
    ],
)
def test_whatever_waits_is_found(gpu, wait):
    value = torch.zeros((), device="cuda")
    gpu.strict = True
    value + 1
    with pytest.raises(Waits):
        wait(value)


@pytest.mark.parametrize("make_step", [v3_step, v4_step])
def test_the_backward_pass_never_waits(monkeypatch, tmp_path, make_step):
    # On the CPU every operation counts: those of the backward pass need no exception.
    backward = torch.Tensor.backward
    seen = []

    def watched(self):
        with Watch(fake=False):
            backward(self)
        seen.append(self)

    monkeypatch.setattr(torch.Tensor, "backward", watched)
    trainer = make_trainer("cpu", tmp_path, make_step=make_step)
    train(trainer, list(batches(4, pin=False)))
    assert len(seen) == 3


def test_an_evaluation_never_waits_before_its_end(gpu):
    metric = ClassIoU(NAMES, "cuda")
    [batch] = batches(1)
    gpu.strict = True
    images = image_to_device(batch["labeled"]["image"], "cuda")
    target = batch["labeled"]["mask"].to("cuda", non_blocking=True)
    for _ in range(2):
        metric.update((images.argmax(1), target))
    with pytest.raises(Waits):
        metric.compute()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("make_step", [v3_step, v4_step])
def test_a_real_gpu_is_never_waited_for(tmp_path, make_step):
    trainer = make_trainer("cuda", tmp_path, make_step=make_step)
    data = DeviceBatches(list(batches(8)), "cuda")
    try:
        train(trainer, data, 6, begin=lambda: torch.cuda.set_sync_debug_mode("error"))
        assert torch.cuda.get_sync_debug_mode() == 2
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert trainer.state.iteration == 6
    assert torch.isfinite(trainer.state.output["loss"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_real_gpu_tells_when_it_is_waited_for(tmp_path):
    trainer = make_trainer("cuda", tmp_path, log_every=3)
    try:
        with pytest.raises(RuntimeError, match="synchronizing"):
            train(
                trainer,
                DeviceBatches(list(batches(8)), "cuda"),
                begin=lambda: torch.cuda.set_sync_debug_mode("error"),
            )
    finally:
        torch.cuda.set_sync_debug_mode("default")
