"""Options: what they resolve to."""

import pytest

from experiments.options import (
    AugmentationOptions,
    DataOptions,
    LossOptions,
    ModelOptions,
    SelfTrainingOptions,
)
from ignite_salak.classes import ClassMap
from ignite_salak.data.plantation import SALAK_CLASSES

GUIDE = [0.60, 0.65, 0.70, 0.65, 0.55, 0.60]


def test_thresholds_are_the_guides_by_class_name():
    assert SelfTrainingOptions().thresholds(SALAK_CLASSES)[1:] == GUIDE
    other = ClassMap(("background", "crop"), ((0, 0, 0), (1, 1, 1)))
    assert SelfTrainingOptions().thresholds(other)[1] == 0.65
    options = SelfTrainingOptions(confidence_threshold=0.5, use_classwise_threshold=False)
    assert options.thresholds(SALAK_CLASSES)[1:] == [0.5] * 6


def test_thresholds_can_be_overridden_by_name_or_index():
    options = SelfTrainingOptions(classwise_thresholds=("snake fruit=0.45", "1=0.5"))
    assert options.thresholds(SALAK_CLASSES)[1:] == [0.5, 0.65, 0.70, 0.65, 0.45, 0.60]


@pytest.mark.parametrize("entry", ["Jalan", "Jalan=", "Jalan=high", "Jalan:0.5", "Durian=0.5"])
def test_bad_overrides_are_refused_by_name(entry):
    with pytest.raises(ValueError, match=entry.split("=")[0]):
        SelfTrainingOptions(classwise_thresholds=(entry,)).thresholds(SALAK_CLASSES)


def test_losses_heads_and_views():
    assert LossOptions(use_combined_loss=False).weights() == {"ce": 1.0}
    assert ModelOptions(num_heads=5).spec(7).num_heads == 5
    assert ModelOptions(use_multi_head=False).spec(7).num_heads == 1
    assert AugmentationOptions(scale_min=224, scale_max=448).sizes(None) == (224, 448)
    assert AugmentationOptions(multi_scale=False).sizes(None) == (256, 256)
    assert AugmentationOptions(random_scale=False).scale_range() == (1.0, 1.0)


def test_data_root_is_needed(tmp_path):
    with pytest.raises(ValueError, match="--data-root is missing"):
        DataOptions().load_classes()
    with pytest.raises(FileNotFoundError, match="not a folder"):
        DataOptions(data_root=tmp_path / "none").load_classes()
