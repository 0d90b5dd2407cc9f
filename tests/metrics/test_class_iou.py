"""The metric against scikit-learn and torchmetrics."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, jaccard_score, precision_recall_fscore_support
from torchmetrics.functional.classification import (
    multiclass_confusion_matrix,
    multiclass_jaccard_index,
)

from ignite_salak.engines import create_evaluator
from ignite_salak.metrics import ClassIoU, scores_from_confusion

NAMES = ("background", "water", "road", "crop")


def random_masks(seed, present=range(4)):
    generator = np.random.default_rng(seed)
    target = generator.choice(list(present), (3, 16, 16))
    pred = np.where(generator.random(target.shape) < 0.6, target, generator.choice(4, target.shape))
    target[generator.random(target.shape) < 0.2] = 255
    return torch.from_numpy(pred), torch.from_numpy(target)


def measure(*batches):
    metric = ClassIoU(NAMES)
    for pred, target in batches:
        metric.update({"pred": pred, "target": target}.values())
    return metric, metric.compute()


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_scikit_learn_and_torchmetrics(seed):
    batches = [random_masks(seed), random_masks(seed + 100)]
    metric, scores = measure(*batches)
    pred = torch.cat([p.flatten() for p, _ in batches])
    target = torch.cat([t.flatten() for _, t in batches])
    kept = target != 255
    truth, guess = target[kept].numpy(), pred[kept].numpy()
    assert np.array_equal(metric.confusion.numpy(), confusion_matrix(truth, guess))
    ours = [scores[f"IoU/{name}"] for name in NAMES]
    assert ours == pytest.approx(jaccard_score(truth, guess, average=None), abs=1e-6)
    theirs = multiclass_jaccard_index(pred, target, 4, average="none", ignore_index=255)
    assert ours == pytest.approx(theirs.tolist(), abs=1e-6)
    assert scores["mIoU_with_background"] == pytest.approx(np.mean(ours), abs=1e-9)
    assert scores["mIoU"] == pytest.approx(np.mean(ours[1:]), abs=1e-9)
    assert scores["accuracy"] == pytest.approx((truth == guess).mean(), abs=1e-9)
    expected = precision_recall_fscore_support(truth, guess)
    for name, values in zip(("precision", "recall", "F1"), expected[:3], strict=True):
        assert [scores[f"{name}/{n}"] for n in NAMES] == pytest.approx(values, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("present", [(0, 1, 3), (1, 2), (3,)])
def test_agrees_where_classes_are_absent_and_much_is_ignored(seed, present):
    pred, target = random_masks(seed, present)
    pred = torch.where(torch.isin(pred, torch.tensor(present)), pred, present[0])
    target[:, :8] = 255
    metric, scores = measure((pred, target))
    kept = target != 255
    truth, guess = target[kept].numpy(), pred[kept].numpy()
    matrix = confusion_matrix(truth, guess, labels=range(4))
    assert np.array_equal(metric.confusion.numpy(), matrix)
    theirs = multiclass_confusion_matrix(pred, target, 4, ignore_index=255)
    assert np.array_equal(theirs.numpy(), matrix)
    ours = np.array([scores[f"IoU/{name}"] for name in NAMES])
    expected = jaccard_score(truth, guess, average=None, labels=range(4), zero_division=0)
    assert np.array_equal(np.isfinite(ours), np.isin(range(4), present))
    assert ours[list(present)] == pytest.approx(expected[list(present)], abs=1e-6)
    jaccard = multiclass_jaccard_index(pred, target, 4, average="none", ignore_index=255)
    assert ours[list(present)] == pytest.approx(jaccard.numpy()[list(present)], abs=1e-6)
    assert scores["mIoU_with_background"] == pytest.approx(np.mean(expected[list(present)]))


def test_an_absent_class_is_nan_and_leaves_the_mean():
    target = torch.tensor([[[0, 1, 3, 3]]])
    _, scores = measure((target, target))
    assert math.isnan(scores["IoU/road"])
    assert math.isnan(scores["recall/road"])
    assert scores["mIoU"] == 1.0
    assert scores["mIoU_with_background"] == 1.0


def test_a_class_predicted_where_it_is_not_counts_as_zero():
    _, scores = measure((torch.tensor([[[2, 1]]]), torch.tensor([[[1, 1]]])))
    assert scores["IoU/road"] == 0.0
    assert scores["mIoU"] == pytest.approx((0.5 + 0.0) / 2)


def test_nothing_labelled_is_nan_not_a_crash():
    _, scores = measure((torch.zeros(1, 2, 2), torch.full((1, 2, 2), 255)))
    assert all(math.isnan(value) for value in scores.values())


@pytest.mark.parametrize("bad", [4, 200, -1, 10**6])
def test_label_errors_are_not_hidden(bad):
    good, wrong = torch.zeros(1, 2, 2), torch.tensor([[[0, bad], [1, 2]]])
    for name, pair in (("target", (good, wrong)), ("prediction", (wrong, good))):
        with pytest.raises(ValueError, match=f"{name} {bad}: not among 4 classes"):
            measure(pair, (good, good))


def test_a_reset_forgets_label_errors_and_ignored_pixels_have_none():
    metric, good = ClassIoU(NAMES), torch.zeros(1, 1, 1)
    metric.update((good, good + 9))
    metric.reset()
    metric.update((good - 7, good + 255))
    metric.update((good, good))
    assert metric.compute()["accuracy"] == 1.0


def test_uint8_masks_do_not_overflow():
    names = tuple(map(str, range(20)))
    metric = ClassIoU(names)
    target = torch.full((1, 2, 2), 15, dtype=torch.uint8)
    metric.update((target, target))
    assert metric.confusion[15, 15] == 4


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="differ"):
        measure((torch.zeros(1, 2, 2), torch.zeros(1, 2, 3)))


def test_reset_by_every_run_of_the_evaluator():
    class Constant(torch.nn.Module):
        def forward(self, images):
            logits = torch.zeros(2, len(images), 4, *images.shape[-2:])
            logits[:, :, 3] = 1
            return logits

    evaluator = create_evaluator(Constant(), {"scores": ClassIoU(NAMES)})
    batch = {
        "image": torch.zeros(2, 3, 4, 4, dtype=torch.uint8),
        "mask": torch.full((2, 4, 4), 3, dtype=torch.uint8),
    }
    for _ in range(2):
        scores = evaluator.run([batch]).metrics["scores"]
        assert scores["accuracy"] == 1.0
    metric_pixels = 2 * 4 * 4
    matrix = torch.zeros(4, 4, dtype=torch.long)
    matrix[3, 3] = metric_pixels
    assert scores["IoU/crop"] == scores_from_confusion(matrix, NAMES)["IoU/crop"]


def test_counts_are_summed_over_ranks():
    import ignite.distributed as idist

    with idist.Parallel(backend="gloo", nproc_per_node=2, start_method="spawn") as parallel:
        parallel.run(_check_two_ranks)


def _check_two_ranks(rank):
    metric, _ = ClassIoU(NAMES), None
    target = torch.full((1, 1, 4), rank + 1)
    metric.update((torch.ones(1, 1, 4), target))
    scores = metric.compute()
    assert scores["accuracy"] == 0.5
    assert scores["IoU/water"] == 0.5
    assert scores["IoU/road"] == 0.0
