"""Matrices of source images against ``ClassIoU`` on the patches of each."""

import math

import torch

from ignite_salak.engines import create_evaluator
from ignite_salak.metrics import ClassIoU, SourceIoU, mean_iou_without

NAMES = ("background", "palm", "road")


def batches():
    """Two batches of four patches; source 2 has none, and 3 is in both batches."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for sources in ([0, 1, 3, 3], [3, 4, 4, 1]):
        pred, target = torch.randint(0, 3, (2, 4, 5, 6), generator=generator)
        target[torch.rand(target.shape, generator=generator) < 0.2] = 255
        made.append((pred, target, torch.tensor(sources)))
    return made


def test_every_source_has_the_matrix_of_its_patches():
    metric = SourceIoU(NAMES, 5)
    for batch in batches():
        metric.update(batch)
    metric.compute()
    pred, target, sources = (torch.cat(parts) for parts in zip(*batches(), strict=True))
    for source in range(5):
        alone = ClassIoU(NAMES)
        own = sources == source
        if own.any():
            alone.update((pred[own], target[own]))
        assert torch.equal(metric.total_by_source[source], alone.confusion)


def test_the_whole_is_that_of_class_iou():
    metric, whole = SourceIoU(NAMES, 5), ClassIoU(NAMES)
    for pred, target, sources in batches():
        metric.update((pred, target, sources))
        whole.update((pred, target))
    assert metric.compute() == whole.compute()
    assert torch.equal(metric.total_by_source.sum(dim=0), whole.total)
    metric.reset()
    assert not metric.by_source.any()


class Brightness(torch.nn.Module):
    """Calls dark pixels background and bright ones palm."""

    def forward(self, images):
        bright = images.mean(dim=1)
        return torch.stack([1 - bright, bright, 0 * bright], dim=1)[None]


def test_it_takes_the_sources_from_the_evaluator():
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    images[1] = 255
    mask = torch.zeros(2, 4, 4, dtype=torch.uint8)
    batch = {"image": images, "mask": mask, "source": torch.tensor([1, 0])}
    metric = SourceIoU(NAMES, 2)
    create_evaluator(Brightness(), {"scores": metric}).run([batch])
    assert metric.total_by_source[1, 0].tolist() == [16, 0, 0]
    assert metric.total_by_source[0, 0].tolist() == [0, 16, 0]


def test_batches_without_sources_still_do_for_other_metrics():
    batch = {"image": torch.zeros(1, 3, 4, 4, dtype=torch.uint8), "mask": torch.zeros(1, 4, 4)}
    whole = ClassIoU(NAMES)
    create_evaluator(Brightness(), {"scores": whole}).run([batch])
    assert whole.total[0, 0] == 16


def test_the_score_without_a_source_is_that_of_the_others():
    metric, others = SourceIoU(NAMES, 5), ClassIoU(NAMES)
    for pred, target, sources in batches():
        metric.update((pred, target, sources))
        kept = sources != 3
        others.update((pred[kept], target[kept]))
    metric.compute()
    assert mean_iou_without(metric.total_by_source, 3, NAMES) == others.compute()["mIoU"]
    assert math.isnan(mean_iou_without(metric.total_by_source[3:4], 0, NAMES))
