"""Boxes, pairs, pasted classes and class confidences, by hand."""

import math
from collections import Counter

import pytest
import torch

from ignite_salak.augment import ClassConfidence, draw_boxes, draw_classes, mix, mixing, neighbours


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def sides(box):
    """Height, width, top and left of one box, which must be a full rectangle."""
    rows, columns = box.any(dim=1).nonzero()[:, 0], box.any(dim=0).nonzero()[:, 0]
    height, width = (int(side[-1] - side[0]) + 1 for side in (rows, columns))
    assert box.sum() == height * width
    return height, width, int(rows[0]), int(columns[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probability": 1.1}, "probability 1.1"),
        ({"area": (0.0, 0.4)}, r"area \(0.0, 0.4\)"),
        ({"area": (0.5, 0.4)}, "area"),
        ({"aspect": (2.0, 1.0)}, "aspect"),
        ({"area": (0.6, 0.6), "aspect": (2.0, 3.0)}, "does not fit"),
        ({"area": (0.6, 0.6), "aspect": (0.3, 0.5)}, "does not fit"),
    ],
)
def test_bad_boxes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        draw_boxes(2, 16, generator(), **options)


def test_boxes_have_the_areas_and_aspects_asked_for():
    size = 128
    boxes = draw_boxes(500, size, generator(), probability=1.0)
    assert boxes.shape == (500, size, size)
    assert boxes.dtype == torch.bool
    shapes = [sides(box) for box in boxes]
    areas = [height * width / size**2 for height, width, _, _ in shapes]
    assert 0.015 < min(areas) < 0.04
    assert 0.38 < max(areas) < 0.405
    assert sum(areas) / 500 == pytest.approx(0.21, abs=0.02)
    aspects = [height / width for height, width, _, _ in shapes]
    assert 0.25 < min(aspects) < 0.5
    assert 2.8 < max(aspects) < 3.7
    assert min(top for _, _, top, _ in shapes) == min(left for *_, left in shapes) == 0
    assert max(top + height for height, _, top, _ in shapes) == size
    assert max(left + width for _, width, _, left in shapes) == size


@pytest.mark.parametrize(
    ("share", "aspect", "shape"),
    [
        (0.25, 1.0, (32, 32)),  # sqrt(0.25) of 64
        (0.125, 2.0, (32, 16)),  # height = sqrt(0.125 * 2) * 64
        (0.04, 0.25, (6, 27)),  # sqrt(0.01) * 64 = 6.4 -> 6; 0.04 * 4096 / 6 = 27.3 -> 27
        (1.0, 1.0, (64, 64)),
    ],
)
def test_a_box_of_given_area_and_aspect(share, aspect, shape):
    boxes = draw_boxes(
        20, 64, generator(), probability=1.0, area=(share, share), aspect=(aspect, aspect)
    )
    assert {sides(box)[:2] for box in boxes} == {shape}


def test_an_aspect_that_is_too_long_for_the_area_is_kept_inside():
    boxes = draw_boxes(100, 50, generator(), probability=1, area=(0.5, 0.5), aspect=(0.2, 5.0))
    shapes = [sides(box) for box in boxes]
    assert all(abs(height * width - 1250) <= height / 2 for height, width, _, _ in shapes)
    assert max(height for height, *_ in shapes) > 45
    assert max(width for _, width, *_ in shapes) > 45
    # Aspects are drawn from what fits, 0.5 to 2, not cut to it afterwards.
    assert sum(50 in shape[:2] for shape in shapes) < 20


def test_a_box_lies_anywhere_with_equal_probability():
    boxes = draw_boxes(4000, 2, generator(), probability=1, area=(0.25, 0.25), aspect=(1, 1))
    assert (boxes.sum(dim=(1, 2)) == 1).all()
    assert torch.allclose(boxes.float().mean(dim=0), torch.full((2, 2), 0.25), atol=0.03)


def test_half_of_the_patches_are_mixed_and_the_others_not_at_all():
    mixed = draw_boxes(1000, 16, generator()).flatten(1).any(dim=1)
    assert 440 < mixed.sum() < 560
    assert not draw_boxes(100, 16, generator(), probability=0.0).any()


def test_a_box_does_not_depend_on_the_batch_or_the_rank():
    whole = draw_boxes(8, 32, generator(), probability=0.8)
    assert torch.equal(draw_boxes(8, 32, generator(), probability=0.8), whole)
    assert torch.equal(draw_boxes(3, 32, generator(), probability=0.8), whole[:3])
    assert torch.equal(draw_boxes(4, 32, generator(), probability=0.8, first=4), whole[4:])
    assert not torch.equal(draw_boxes(8, 32, generator(1), probability=0.8), whole)


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, [0]), (2, [1, 0]), (3, [1, 0, 1]), (6, [1, 0, 3, 2, 5, 4]), (5, [1, 0, 3, 2, 3])],
)
def test_neighbours(count, expected):
    assert neighbours(count).tolist() == expected


def test_images_labels_and_weights_move_together():
    labels = torch.randint(0, 7, (6, 16, 16), generator=generator())
    images = (labels[:, None] / 10).repeat(1, 3, 1, 1)  # labels can be read off the image
    weights = labels.float() + 100
    mask, partner = draw_boxes(6, 16, generator(), probability=1.0), neighbours(6)
    mixed = [mix(mask, values, values[partner]) for values in (images, labels, weights)]
    assert torch.equal(mixed[0], (mixed[1][:, None] / 10).expand(-1, 3, -1, -1))
    assert torch.equal(mixed[2], mixed[1].float() + 100)
    for patch in range(6):
        assert torch.equal(mixed[1][patch][mask[patch]], labels[patch ^ 1][mask[patch]])
        assert torch.equal(mixed[1][patch][~mask[patch]], labels[patch][~mask[patch]])
    assert mixed[1].dtype == torch.int64


@pytest.mark.parametrize(
    ("mask", "own", "other"),
    [
        ((2, 4, 4), (2, 3, 4, 4), (2, 4, 4)),
        ((2, 4, 4), (1, 4, 4), (1, 4, 4)),
        ((2, 4, 4), (2, 3, 4, 8), (2, 3, 4, 8)),
        ((2, 1, 4, 4), (2, 3, 4, 4), (2, 3, 4, 4)),
    ],
)
def test_shapes_that_do_not_go_together_are_refused(mask, own, other):
    with pytest.raises(ValueError, match=r"expected \[B, S, S\]"):
        mix(torch.zeros(mask, dtype=torch.bool), torch.zeros(own), torch.zeros(other))


def stripes(*classes):
    """A patch with one row for each class."""
    return torch.tensor(classes)[:, None].expand(-1, 4)


def drawn(labels, scores, **options):
    """Drawn classes of every patch; each must be drawn with all its pixels."""
    mask = draw_classes(labels, scores, generator(), **options)
    result = []
    for patch, chosen in zip(labels, mask, strict=True):
        classes = set(patch[chosen].tolist())
        assert torch.equal(chosen, torch.isin(patch, torch.tensor(sorted(classes))))
        result.append(classes)
    return result


def test_half_of_the_classes_of_a_patch_are_drawn_and_never_all_of_them():
    labels = torch.stack(
        [
            stripes(1, 2, 3, 4, 5),
            stripes(1, 1, 2, 3, 4),
            stripes(6, 6, 6, 6, 6),
            stripes(255, 255, 0, 255, 3),
            stripes(255, 255, 255, 255, 255),
        ]
    )
    sets = drawn(labels, torch.ones(7))
    assert [len(classes) for classes in sets] == [2, 2, 0, 1, 0]


def test_ignored_pixels_are_never_drawn():
    labels = torch.randint(0, 5, (50, 8, 8), generator=generator())
    labels = torch.where(labels == 4, 255, labels)
    mask = draw_classes(labels, torch.ones(4), generator())
    assert mask.any()
    assert not (mask & (labels == 255)).any()


def test_the_background_can_be_left_out():
    labels = stripes(0, 1, 2, 3).expand(200, 4, 4)
    sets = drawn(labels, torch.tensor([100.0, 1, 1, 1]), with_background=False)
    assert all(len(classes) == 2 and 0 not in classes for classes in sets)
    sets = drawn(labels, torch.tensor([100.0, 1, 1, 1]))
    assert sum(0 in classes for classes in sets) > 190
    assert drawn(stripes(0, 3)[None], torch.ones(4), with_background=False) == [{3}]
    only = stripes(0, 0, 255, 0, 0)[None]
    assert not draw_classes(only, torch.ones(4), generator(), with_background=False).any()


def test_classes_are_drawn_in_proportion_to_their_scores():
    # One of two: score / sum of the scores.
    labels = stripes(1, 2).expand(4000, 2, 4)
    found = Counter(next(iter(classes)) for classes in drawn(labels, torch.tensor([9.0, 3, 1])))
    assert found[1] / 4000 == pytest.approx(0.75, abs=0.03)
    # Two of four with scores 4, 2, 1, 1, by hand: {1, 2}: 4/8 * 2/4 + 2/8 * 4/6 = 0.417,
    # {1, 3}: 4/8 * 1/4 + 1/8 * 4/7 = 0.196, {2, 3}: 2/8 * 1/6 + 1/8 * 2/7 = 0.077.
    labels = stripes(1, 2, 3, 4).expand(4000, 4, 4)
    scores = torch.tensor([9.0, 4, 2, 1, 1])
    found = Counter(frozenset(classes) for classes in drawn(labels, scores))
    shares = [found[frozenset(pair)] / 4000 for pair in ((1, 2), (1, 3), (2, 3))]
    assert shares == pytest.approx([0.417, 0.196, 0.077], abs=0.03)


def test_an_absent_class_leaves_its_place_to_the_others():
    labels = stripes(1, 2, 3, 3).expand(50, 4, 4)
    sets = drawn(labels, torch.tensor([1.0, 0.0, 1.0, 1.0, 1e6]))
    assert {frozenset(classes) for classes in sets} == {frozenset({2}), frozenset({3})}


def test_the_classes_of_a_patch_do_not_depend_on_the_batch_or_the_rank():
    labels = torch.randint(0, 6, (8, 4, 4), generator=generator(5))
    scores = torch.arange(1.0, 7.0)
    whole = draw_classes(labels, scores, generator())
    assert torch.equal(draw_classes(labels, scores, generator()), whole)
    assert torch.equal(draw_classes(labels[:3], scores, generator()), whole[:3])
    assert torch.equal(draw_classes(labels[4:], scores, generator(), 4), whole[4:])
    assert not torch.equal(draw_classes(labels, scores, generator(1)), whole)


def test_a_pasted_class_brings_its_true_label_and_its_pixels():
    labels = torch.stack([stripes(1, 255, 2, 0), stripes(3, 0, 255, 3)])
    images = torch.rand(2, 3, 4, 4, generator=generator())
    mask = draw_classes(labels, torch.tensor([1e-9, 1, 1, 1]), generator())
    own, pseudo = torch.zeros(2, 3, 4, 4), torch.full((2, 4, 4), 255)
    pasted, truth = mix(mask, own, images), mix(mask, pseudo, labels)
    assert truth[1, :, 0].tolist() == [3, 255, 255, 3]
    assert torch.equal(pasted[1, :, 3], images[1, :, 3])
    assert (pasted[1, :, 2] == 0).all()
    kept = truth != 255
    assert torch.equal(truth[kept], labels[kept])
    assert torch.equal(
        pasted[kept[:, None].expand_as(pasted)], images[mask[:, None].expand_as(images)]
    )


def two_classes(first, second, third=0.0):
    """Probabilities [1, 3, 1, 3] whose pixels have true classes 0, 0 and 1."""
    probabilities = torch.tensor([first, second, third])
    return probabilities.expand(3, 3).T[None, :, None].contiguous(), torch.tensor([[[0, 0, 1]]])


def test_confidence_is_a_plain_mean_at_first_then_a_moving_average():
    confidence = ClassConfidence(3, decay=0.75)
    seen = [0.2, 0.4, 0.9, 0.5, 0.1, 0.6]
    for value in seen:
        confidence.update(*two_classes(value, 1 - value))
    expected = sum(seen[:4]) / 4
    for value in seen[4:]:
        expected = 0.75 * expected + 0.25 * value
    assert confidence.values.tolist() == pytest.approx([expected, 1 - expected, 0.0])
    assert confidence.updates.tolist() == [6, 6, 0]


def test_confidence_counts_true_pixels_only():
    probabilities = torch.tensor([[0.9, 0.5, 0.2, 0.3], [0.1, 0.5, 0.8, 0.7]])[None, :, None]
    confidence = ClassConfidence(2)
    confidence.update(probabilities, torch.tensor([[[0, 0, 1, 255]]]))
    assert confidence.values.tolist() == pytest.approx([0.7, 0.8])
    confidence.update(probabilities, torch.tensor([[[255, 1, 255, 255]]]))
    assert confidence.values.tolist() == pytest.approx([0.7, 0.65])
    confidence.update(probabilities, torch.full((1, 1, 4), 255))
    assert confidence.values.tolist() == pytest.approx([0.7, 0.65])
    assert confidence.updates.tolist() == [1, 2]


def test_scores_prefer_what_the_model_is_unsure_of():
    confidence = ClassConfidence(3)
    confidence.update(*two_classes(0.75, 0.19, 0.06))
    expected = [math.exp(0.5), math.exp(0.9), math.exp(1.0)]
    assert confidence.scores().tolist() == pytest.approx(expected)
    sure = ClassConfidence(2)
    sure.values += 1.0000001
    assert sure.scores().tolist() == pytest.approx([1.0, 1.0])


def test_confidence_survives_a_checkpoint(tmp_path):
    confidence = ClassConfidence(3)
    confidence.update(*two_classes(0.7, 0.3))
    torch.save(confidence.state_dict(), tmp_path / "state.pth")
    confidence.update(*two_classes(0.1, 0.9))
    other = ClassConfidence(3)
    values = other.values
    other.load_state_dict(torch.load(tmp_path / "state.pth", weights_only=True))
    assert other.values is values
    assert values.tolist() == pytest.approx([0.7, 0.3, 0.0])
    other.update(*two_classes(0.1, 0.9))
    assert torch.equal(other.values, confidence.values)
    assert torch.equal(other.updates, confidence.updates)


def test_a_state_of_other_classes_and_a_bad_decay_are_refused():
    with pytest.raises(ValueError, match="4 classes were saved, 3 are wanted"):
        ClassConfidence(3).load_state_dict(ClassConfidence(4).state_dict())
    with pytest.raises(ValueError, match=r"decay 1\.0"):
        ClassConfidence(3, decay=1.0)


def test_two_ranks_know_what_one_would(monkeypatch):
    # Class 1 lies in the second patch only, class 2 in none.
    probabilities = torch.rand(2, 3, 4, 4, generator=generator()).softmax(dim=1)
    target = torch.stack([stripes(0, 0, 0, 255), stripes(0, 1, 1, 1)])
    whole = ClassConfidence(3)
    whole.update(probabilities, target)
    sent = []
    monkeypatch.setattr(mixing, "sum_over_ranks", lambda sums: sent.append(sums) or sums)
    for rank in range(2):
        ClassConfidence(3).update(probabilities[rank][None], target[rank][None])
    monkeypatch.setattr(mixing, "sum_over_ranks", lambda sums: sum(sent))
    for rank in range(2):
        part = ClassConfidence(3)
        part.update(probabilities[rank][None], target[rank][None])
        assert torch.allclose(part.values, whole.values)
        assert part.updates.tolist() == [1, 1, 0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_mixes_the_same_and_is_not_waited_for():
    labels = torch.randint(0, 4, (6, 16, 16), generator=generator())
    labels = torch.where(labels == 3, 255, labels)
    probabilities = torch.rand(6, 3, 16, 16, generator=generator()).softmax(dim=1)

    def mixed(labels, probabilities, device):
        confidence = ClassConfidence(3, device=device)
        confidence.update(probabilities, labels)
        boxes = draw_boxes(6, 16, generator(), device=device)
        classes = draw_classes(labels, confidence.scores(), generator())
        return mix(boxes | classes, labels, labels[neighbours(6, device)])

    expected = mixed(labels, probabilities, "cpu")
    labels, probabilities = labels.cuda(), probabilities.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = mixed(labels, probabilities, "cuda")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(found.cpu(), expected)
