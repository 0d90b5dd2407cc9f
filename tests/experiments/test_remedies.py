"""What is offered where memory runs out."""

from dataclasses import replace

import pytest

from experiments import remedies as module
from experiments.remedies import MemorySettings, remedies
from experiments.train_v3 import Options
from tests.experiments.memory_errors import CPU, GUIDE, SMALLEST


def flags(settings, phase="training", **where):
    """What is offered, by flag."""
    return {text.split()[0]: text for text in remedies(settings, phase, **where)}


def test_all_remedies_mildest_first():
    assert remedies(GUIDE, "training") == [
        "--grad-accumulation 1 -> 2",
        "--scale-max 384 -> 320",
        "--batch-size 8 -> 4 with --learning-rate 0.00025 -> 0.000125",
        "--output-stride 8 -> 16",
        "--precision fp32 -> bf16",
        "--backbone resnet101 -> resnet50",
    ]
    assert remedies(SMALLEST, "training") == []


@pytest.mark.parametrize(
    ("batch", "now", "ranks", "expected"),
    [
        (8, 1, 1, "1 -> 2"),
        (8, 2, 1, "2 -> 4"),
        (8, 4, 1, None),  # parts of one patch
        (9, 1, 1, "1 -> 3"),
        (12, 3, 1, "3 -> 4"),
        (7, 1, 1, None),
        (3, 1, 1, None),
        (2, 1, 1, None),
        (16, 1, 2, "1 -> 2"),
        (8, 2, 2, None),  # a rank has 4 patches: already in parts of 2
        (12, 2, 2, "2 -> 3"),  # a rank has 6 patches
    ],
)
def test_parts_are_equal_and_of_two_patches_at_least(batch, now, ranks, expected):
    settings = replace(GUIDE, batch_size=batch, grad_accumulation=now, ranks=ranks)
    found = flags(settings).get("--grad-accumulation")
    assert found == (expected and f"--grad-accumulation {expected}")


@pytest.mark.parametrize(
    ("scales", "expected"),
    [
        ((256, 384), "384 -> 320"),
        ((256, 320), "320 -> 256"),
        ((256, 272), "272 -> 256"),
        ((300, 320), "320 -> 304"),
        ((256, 270), "270 -> 256"),
        ((256, 256), None),
        ((250, 250), None),
        ((250, 255), None),
        ((32, 48), "48 -> 32"),
    ],
)
def test_views_stay_multiples_of_16_and_over_the_smallest(scales, expected):
    found = flags(replace(GUIDE, scales=scales)).get("--scale-max")
    assert found == (expected and f"--scale-max {expected}")


@pytest.mark.parametrize(
    ("batch", "parts", "ranks", "optimizer", "expected"),
    [
        (8, 1, 1, "adamw", "8 -> 4 with --learning-rate 0.00025 -> 0.000177"),
        (3, 1, 1, "sgd", "3 -> 2 with --learning-rate 0.00025 -> 0.000167"),
        (8, 2, 1, "sgd", "8 -> 4 with --learning-rate 0.00025 -> 0.000125"),
        (24, 2, 2, "sgd", "24 -> 12 with --learning-rate 0.00025 -> 0.000125"),
        (20, 2, 2, "sgd", "20 -> 8 with --learning-rate 0.00025 -> 0.0001"),
        (2, 1, 1, "sgd", None),
        (8, 4, 1, "sgd", None),
        (8, 1, 4, "sgd", None),
    ],
)
def test_a_smaller_batch_brings_its_learning_rate(batch, parts, ranks, optimizer, expected):
    settings = replace(
        GUIDE, batch_size=batch, grad_accumulation=parts, ranks=ranks, optimizer=optimizer
    )
    assert flags(settings).get("--batch-size") == (expected and f"--batch-size {expected}")


def test_stride_precision_and_backbone_only_where_they_can_be_lowered():
    assert "--output-stride" not in flags(replace(GUIDE, output_stride=16))
    assert "--precision" not in flags(replace(GUIDE, bf16_supported=False))
    assert "--precision" not in flags(replace(GUIDE, precision="bf16"))
    assert "--backbone" not in flags(replace(GUIDE, backbone="timm/regnety_002"))
    assert flags(replace(GUIDE, backbone="resnet50"))["--backbone"].endswith("resnet50 -> resnet18")


def test_evaluation_building_and_reading_have_their_own_remedies():
    everywhere = ["--batch-size", "--output-stride", "--precision", "--backbone"]
    assert list(flags(GUIDE, "evaluation")) == everywhere
    assert list(flags(GUIDE, "building")) == ["--backbone"]
    assert remedies(GUIDE, "loading", on_host=True) == [
        "--num-workers 4 -> 2",
        "--cache ram -> disk",
    ]
    assert list(flags(GUIDE, "training", on_host=True))[:3] == [
        "--num-workers",
        "--cache",
        "--grad-accumulation",
    ]
    assert remedies(replace(GUIDE, num_workers=0, cache="disk"), "loading", on_host=True) == []


def test_settings_of_a_script(monkeypatch):
    monkeypatch.setattr(module, "rank_count", lambda: 3)
    options = Options()
    options.data.cache = "ram"
    options.schedule.grad_accumulation = 2
    options.model.output_stride = 8
    options.run.num_workers = 3
    options.schedule.batch_size = 12
    assert MemorySettings.of(options, CPU) == MemorySettings(
        batch_size=12,
        learning_rate=2.5e-4,
        optimizer="sgd",
        scales=(256, 384),
        output_stride=8,
        precision="fp32",
        backbone="resnet50",
        grad_accumulation=2,
        ranks=3,
        num_workers=3,
        cache="ram",
    )
