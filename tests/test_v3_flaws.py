"""One test per way in which the first V3 script went wrong, in the words of its post-mortem."""

import shutil

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from PIL import Image
from torch import nn

from experiments.console import parse
from experiments.data import load_data
from experiments.options import DataOptions, RunOptions
from experiments.train_v3 import Options
from ignite_salak.augment import RandomGeometry
from ignite_salak.classes import ClassMap
from ignite_salak.data.decoding import BadFileError, MaskReader
from ignite_salak.data.plantation import make_plantation
from ignite_salak.engines import create_evaluator
from ignite_salak.events import TrainingEvents
from ignite_salak.handlers import BestModelSaver, EMAUpdater, EvaluationResult
from ignite_salak.losses import CombinedLoss, dice_loss, focal_loss
from ignite_salak.metrics import ClassIoU
from ignite_salak.models import DeepLabV3Plus, build_encoder
from ignite_salak.models.model_file import ModelSpec
from ignite_salak.pseudo_labels import content_mask, select_pseudo_labels
from ignite_salak.steps import SelfTrainingStep
from ignite_salak.steps.views import Views
from ignite_salak.voting import disagreement

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def plantation(tmp_path_factory):
    root = tmp_path_factory.mktemp("plantation")
    return make_plantation(root, photos=12, photo_size=96, patch_size=32)


def load(plantation, batch_size=4, **options):
    run = RunOptions(num_workers=0)
    return load_data(
        DataOptions(data_root=plantation.root, **options), run, batch_size=batch_size, device=CPU
    )


@pytest.fixture(scope="module")
def data(plantation):
    return load(plantation)


def network(**options):
    torch.manual_seed(0)
    return DeepLabV3Plus(build_encoder("resnet18", pretrained=False), 7, **options)


def test_the_unlabelled_loader_held_no_unlabelled_patch_and_contained_the_validation_patches(data):
    pool = data.stream.pools["unlabeled"]
    assert len(pool) == 6 * 9
    assert not data.index.has_mask[pool.patches].any()
    assert not np.isin(pool.patches, data.split.validation).any()
    assert "mask" not in pool[0]


@pytest.mark.parametrize("seed", range(5))
def test_the_split_was_by_patch_so_one_photo_stood_on_both_sides(plantation, seed):
    run = RunOptions(num_workers=0, seed=seed)
    data = load_data(DataOptions(data_root=plantation.root), run, batch_size=4, device=CPU)
    source = data.index.source_ids
    validation = set(source[data.split.validation])
    assert validation
    assert not validation & set(source[data.split.labeled])
    assert not validation & set(source[data.split.unlabeled])


def test_neighbouring_frames_overlap_so_validation_is_a_contiguous_block(plantation):
    data = load(plantation, val_split=0.5)
    for folder in ("salak-1-1", "salak-1-2"):
        names = [f"{folder}/{n}" for n in photos_of(plantation, folder)]
        held_out = [name in data.split.sources(data.index)["validation"] for name in names]
        assert "".join("v" if v else "-" for v in held_out).strip("-").count("-") == 0


def photos_of(plantation, folder):
    files = (plantation.root / folder / "images").iterdir()
    return sorted({path.name.split("_patch_")[0] for path in files})


def test_validation_used_random_scale_crop_and_flip_unseeded(data):
    model = network(decoder_channels=8).eval()
    evaluator = create_evaluator(model, {"scores": ClassIoU(data.classes.names)})
    first = dict(evaluator.run(data.validation).metrics["scores"])
    torch.manual_seed(17)
    assert str(first) == str(dict(evaluator.run(data.validation).metrics["scores"]))
    shown = torch.cat([batch["image"] for batch in data.validation])
    path = data.index.image_path(int(data.split.validation[0]))
    assert np.array_equal(shown[0].permute(1, 2, 0).numpy(), np.asarray(Image.open(path)))
    assert len(shown) == len(data.split.validation)


class Remembering(nn.Module):
    """One sure head: class 1 where red leads, else class 2; remembers its inputs."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(20.0))
        self.seen = []

    def forward(self, images):
        self.seen.append(images.detach().clone())
        margin = self.scale * (images[:, 0] - images[:, 1])
        return torch.stack([torch.full_like(margin, -50), margin, -margin], 1)[None]


def v3_step(model, supervised_weights=None):
    return SelfTrainingStep(
        model,
        torch.optim.SGD(model.parameters(), lr=0.0),
        CombinedLoss({"ce": 1.0}, supervised_weights),
        CombinedLoss({"ce": 1.0}),
        thresholds=(0.0, 0.6, 0.6),
        views=Views(RandomGeometry(scale_range=(0.5, 1.5)), (32, 64), seed=0),
        start_iteration=1,
    )


def run_once(step, labeled, mask, unlabeled):
    engine = Engine(step)
    engine.register_events(*TrainingEvents)
    batch = {"labeled": {"image": labeled, "mask": mask}, "unlabeled": {"image": unlabeled}}
    engine.run([batch])
    return engine


def random_patches(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 256, (count, 3, 32, 32), generator=generator).to(torch.uint8)


def test_pseudo_labels_came_from_the_student_on_the_very_tensor_it_then_trained_on():
    model = Remembering()
    unlabeled = random_patches(8)
    mask = torch.ones(8, 32, 32, dtype=torch.uint8)
    run_once(v3_step(model), random_patches(8, 1), mask, unlabeled)
    voted_on, trained_on = model.seen
    assert torch.equal(voted_on, unlabeled.float() / 255)
    assert trained_on.shape[-1] != 32 or not torch.allclose(trained_on[8:], voted_on)


def test_background_had_threshold_0_and_was_trained_99_75_percent_of_all_pixels_passed():
    probabilities = torch.zeros(1, 3, 8, 8)
    probabilities[:, 0], probabilities[:, 1] = 0.99, 0.01
    thresholds, valid = torch.zeros(3), torch.ones(1, 8, 8, dtype=torch.bool)
    pseudo = select_pseudo_labels(probabilities, thresholds, valid)
    assert (pseudo.labels == 255).all()
    assert pseudo.kept == 0


def test_padding_got_pseudo_labels():
    model = Remembering()
    unlabeled = random_patches(4)
    unlabeled[:, :, 20:] = 0
    step = v3_step(model)
    mask = torch.ones(4, 32, 32, dtype=torch.uint8)
    engine = run_once(step, random_patches(4, 1), mask, unlabeled)
    labels = engine.state.pseudo_labels.labels
    assert (labels[:, 20:] == 255).all()
    assert (labels[:, :20] != 255).any()
    assert engine.state.output["st_px"] <= 4 * 20 * 32
    # The border that a shrunk view gets is padding too.
    geometry = RandomGeometry(scale_range=(0.5, 0.5)).draw(4, 32, 32, 32, torch.Generator())
    border = ~content_mask(geometry.warp_image(torch.ones(4, 3, 32, 32)))
    assert border.any()
    assert (geometry.warp_labels(torch.ones(4, 32, 32, dtype=torch.long))[border] == 255).all()


def test_the_class_weights_also_weighted_the_pseudo_labels():
    mask, unlabeled = torch.ones(4, 32, 32, dtype=torch.uint8), random_patches(4)
    losses = []
    for weights in (torch.tensor([1.0, 65.8, 1.0]), torch.tensor([1.0, 1.0, 65.8])):
        step = v3_step(Remembering(), weights)
        losses.append(run_once(step, random_patches(4, 1), mask, unlabeled).state.output["st"])
    assert losses[0] == losses[1]
    assert losses[0] > 0


def test_three_heads_averaged_before_the_loss_are_one_linear_classifier():
    model = network(decoder_channels=16)
    convolutions = [[m for m in head.modules() if isinstance(m, nn.Conv2d)] for head in model.heads]
    assert all(head[0].kernel_size == (3, 3) for head in convolutions)
    dropout = [m.p for head in model.heads for m in head.modules() if isinstance(m, nn.Dropout)]
    assert dropout == pytest.approx([0.10, 0.15, 0.20])
    logits = model.eval()(torch.rand(2, 3, 32, 32))
    assert disagreement(logits) > 0
    # Each head is judged for itself: the loss of the mean of opposite errors would be small.
    opposite = torch.tensor([[9.0, -9.0], [-9.0, 9.0]]).view(2, 1, 2, 1, 1)
    target = torch.zeros(1, 1, 1, dtype=torch.long)
    assert CombinedLoss({"ce": 1.0})(opposite, target)["ce"] > 8
    step = v3_step(Remembering())
    mask = torch.ones(2, 32, 32, dtype=torch.uint8)
    output = run_once(step, random_patches(2), mask, random_patches(2, 1)).state.output
    assert "disagreement" in output


def test_ema_skipped_batchnorm_buffers_and_had_no_ramp():
    model = network(decoder_channels=8)
    ema = EMAUpdater(model, 0.9995)
    for value in model.state_dict().values():
        value.fill_(3)
    for _ in range(2):
        ema.update()
    for name, value in ema.model.state_dict().items():
        assert (value.float() == 3).all(), name


def test_resume_overwrote_the_best_model_with_the_first_evaluation_afterwards(tmp_path):
    saved = []
    best = BestModelSaver(tmp_path / "best.pth", lambda path, facts: saved.append(facts))
    best.load_state_dict({"score": 0.7, "iteration": 500})
    engine = Engine(lambda engine, batch: None)
    engine.state.evaluation = EvaluationResult(600, {"mIoU": 0.6}, {"mIoU": 0.6})
    best.judge(engine)
    assert saved == []


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "mobilenet_v3_large"])
def test_output_stride_8_left_the_real_stride_at_32_and_backbone_was_never_read(backbone, stride):
    model = ModelSpec(7, backbone, output_stride=stride, decoder_channels=8).build().eval()
    _, deep = model.encoder(torch.zeros(1, 3, 64, 64))
    assert deep.shape[-1] == 64 // stride
    widths = {"resnet18": 512, "resnet50": 2048, "mobilenet_v3_large": 960}
    assert deep.shape[1] == widths[backbone]


def test_no_store_true_flag_could_be_switched_off():
    options = parse(Options, ["--no-use-multi-head", "--no-multi-scale", "--no-use-class-weights"])
    assert not options.model.use_multi_head
    assert not options.augmentation.multi_scale
    assert not options.loss.use_class_weights


def test_rgb_masks_were_compared_in_bgr_order_and_unknown_colours_became_class_0(tmp_path):
    classes = ClassMap(("background", "roof"), ((0, 0, 0), (255, 225, 50)))
    pixels = np.array([[[255, 225, 50], [50, 225, 255], [0, 0, 0]]], dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    mask, unlisted = MaskReader(classes).read(tmp_path / "mask.png")
    assert mask.tolist() == [[1, 255, 0]]
    assert unlisted == {(50, 225, 255): 1}


def test_images_were_mean_subtracted_but_not_scaled_to_the_pretrained_range():
    model = network(decoder_channels=8).eval()
    seen = []
    model.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    means = torch.tensor(model.encoder.mean).view(1, 3, 1, 1)
    deviations = torch.tensor(model.encoder.std).view(1, 3, 1, 1)
    model((means + deviations).expand(1, 3, 32, 32))
    assert torch.allclose(seen[0], torch.ones(1, 3, 32, 32), atol=1e-5)


def test_dice_averaged_over_all_classes_so_an_absent_one_added_a_constant():
    target = torch.ones(2, 4, 4, dtype=torch.long)
    perfect = torch.full((2, 7, 4, 4), -60.0).scatter_(1, target[:, None], 60.0).log_softmax(1)
    assert dice_loss(perfect, target) < 1e-5


def test_focal_had_a_scalar_alpha():
    log_p = torch.full((1, 2, 1, 2), 0.5).log()
    log_p[0, :, 0, 1] = torch.tensor([0.9, 0.1]).log()
    target = torch.tensor([[[0, 1]]])
    rare = focal_loss(log_p, target, torch.tensor([1.0, 10.0]))
    common = focal_loss(log_p, target, torch.tensor([10.0, 1.0]))
    assert rare > 2 * common


def test_an_all_ignored_target_gave_nan():
    loss = CombinedLoss({"ce": 0.4, "dice": 0.4, "focal": 0.2}, torch.ones(7))
    parts = loss(torch.randn(3, 2, 7, 8, 8), torch.full((2, 8, 8), 255))
    assert all(value == 0 for value in parts.values())


def test_a_last_batch_of_one_sample_crashed_batchnorm(data):
    # 3 patches a batch do not divide the pools; the stream goes round instead of giving fewer.
    stream = data.stream
    sizes = {len(pool) for pool in stream.pools.values()}
    batches = iter(stream)
    for _ in range(max(sizes) // stream.batch_size + 2):
        batch = next(batches)
        assert {len(pool["image"]) for pool in batch.values()} == {stream.batch_size}
    network(decoder_channels=8).eval()(torch.rand(1, 3, 32, 32))


def test_bare_except_hid_loader_errors(plantation, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(plantation.root, root)
    for path in (root / "salak-1-3" / "images").iterdir():
        path.write_bytes(b"not an image")
    data = load_data(
        DataOptions(data_root=root), RunOptions(num_workers=0), batch_size=4, device=CPU
    )
    with pytest.raises(BadFileError, match="salak-1-3"):
        for _, _batch in zip(range(30), data.stream, strict=False):
            pass


def test_every_evaluation_read_all_training_patches_and_kept_every_prediction(data):
    patches = [
        sum(len(b["image"]) for b in batches) for batches in (data.validation, data.training)
    ]
    assert patches[0] == patches[1] == len(data.split.validation)
    assert patches[1] < len(data.split.labeled)
    metric = ClassIoU(data.classes.names)
    held = {name: value for name, value in vars(metric).items() if torch.is_tensor(value)}
    for _ in range(3):
        metric.update((torch.ones(9, 32, 32), torch.ones(9, 32, 32)))
    after = {name: value for name, value in vars(metric).items() if torch.is_tensor(value)}
    assert after.keys() == held.keys()
    assert sum(value.numel() for value in after.values()) == 49
