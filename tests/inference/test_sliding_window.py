"""Windows that cover, weights that sum to one, bands that follow each other, no seams."""

import itertools
import tracemalloc

import numpy as np
import pytest
import torch
from torch import nn

from ignite_salak.inference.sliding_window import SlidingWindow, blending_weights, window_starts

PLANS = [
    *((100, 32, 16, 0), (100, 32, 16, 7), (100, 32, 32, 0), (100, 32, 24, 23), (33, 32, 16, 3)),
    *((32, 32, 16, 0), (20, 32, 16, 5), (1, 32, 16, 0), (129, 32, 4, 1)),
]


def as_red(windows):
    """Two classes whose probabilities are the red channel and its rest."""
    red = windows[:, :1].float() / 255
    return torch.cat([red, 1 - red], dim=1)


def reader(image, valid=None):
    whole = np.ones(image.shape[1:], bool) if valid is None else valid

    def read(top, rows):
        return image[:, top : top + rows], whole[top : top + rows]

    return read


def predict(window, image, valid=None):
    """All bands, as one."""
    bands = window(reader(image, valid), *image.shape[1:])
    return torch.cat([band.probabilities.clone() for band in bands], dim=1)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (3, height, width), dtype=np.uint8)


@pytest.mark.parametrize(("length", "size", "stride", "offset"), PLANS)
def test_windows_cover_and_stay_inside(length, size, stride, offset):
    starts = window_starts(length, size, stride, offset)
    assert starts == sorted(set(starts))
    assert starts[0] == 0
    assert starts[-1] + min(size, length) == length
    assert all(after - before <= stride for before, after in itertools.pairwise(starts))


def test_window_starts_by_hand():
    assert window_starts(100, 32, 16) == [0, 16, 32, 48, 64, 68]
    assert window_starts(100, 32, 16, 6) == [0, 10, 26, 42, 58, 68]
    assert window_starts(20, 32, 16) == [0]


@pytest.mark.parametrize(("length", "size", "stride", "offset"), PLANS)
def test_weights_sum_to_one_everywhere(length, size, stride, offset):
    starts = window_starts(length, size, stride, offset)
    size = min(size, length)
    total = torch.zeros(length, dtype=torch.float64)
    for start, weight in zip(starts, blending_weights(length, size, starts), strict=True):
        assert (weight > 0).all()
        total[start : start + size] += weight
    assert torch.allclose(total, torch.ones_like(total), atol=1e-6)


def test_weights_are_a_hann_window_where_two_windows_share_a_pixel():
    weights = blending_weights(12, 8, [0, 4])
    # sin^2 at (k + 1/2) / 8 of half a turn; half a window further it is cos^2, so they sum to one.
    expected = torch.sin(torch.pi * (torch.arange(4) + 0.5) / 8) ** 2
    assert torch.allclose(weights[1][:4], expected, atol=1e-6)
    assert torch.allclose(weights[0][4:], 1 - expected, atol=1e-6)
    assert torch.allclose(weights[0][:4], torch.ones(4))


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize(("height", "width"), [(70, 100), (10, 100), (70, 7), (64, 64), (1, 1)])
def test_a_pixelwise_prediction_comes_back_exactly(height, width, overlap):
    image = noise(height, width)
    window = SlidingWindow(as_red, 2, size=32, overlap=overlap, batch_size=3, offset=5)
    found = predict(window, image)
    assert found.shape == (2, height, width)
    assert torch.allclose(found[0], torch.from_numpy(image[0] / 255).float(), atol=1e-5)
    assert torch.allclose(found.sum(dim=0), torch.ones(height, width), atol=1e-5)


def test_two_windows_are_blended_by_their_weights():
    answers = iter([0.0, 1.0])

    def one_answer_per_window(windows):
        assert windows.dtype == torch.uint8
        share = torch.tensor([next(answers) for _ in windows])
        chosen = share[:, None, None, None].expand(-1, 1, *windows.shape[2:])
        return torch.cat([chosen, 1 - chosen], dim=1)

    window = SlidingWindow(one_answer_per_window, 2, size=16, overlap=0.5)
    found = predict(window, noise(16, 24))
    expected = torch.sin(torch.pi * (torch.arange(8) + 0.5) / 16) ** 2
    assert torch.allclose(found[0, :, 8:16], expected.expand(16, 8), atol=1e-6)
    assert (found[0, :, :8] == 0).all()
    assert torch.allclose(found[0, :, 16:], torch.ones(16, 8))


def test_every_row_is_read_once_in_order_and_bands_follow_each_other():
    image, asked = noise(75, 40), []

    def read(top, rows):
        asked.append((top, rows))
        return reader(image)(top, rows)

    bands = list(SlidingWindow(as_red, 2, size=32, overlap=0.25)(read, 75, 40))
    assert asked == [(0, 32), (32, 24), (56, 19)]
    assert [band.top for band in bands] == [0, 24, 43]
    assert np.array_equal(np.concatenate([band.image for band in bands], axis=1), image)
    assert sum(len(band.valid) for band in bands) == 75
    assert len(bands) == SlidingWindow(as_red, 2, size=32, overlap=0.25).rows(75)


def test_windows_without_a_valid_pixel_are_not_predicted():
    seen = []

    def count(windows):
        seen.append(len(windows))
        return as_red(windows)

    image, valid = noise(64, 64), np.zeros((64, 64), bool)
    valid[40:50, 40:50] = True
    window = SlidingWindow(count, 2, size=32, overlap=0.0)
    found = predict(window, image, valid)
    assert seen == [1]
    expected = torch.from_numpy(image[0] / 255).float()
    assert torch.allclose(found[0, 40:50, 40:50], expected[40:50, 40:50], atol=1e-5)
    assert (found[:, :32] == 0).all()
    assert not SlidingWindow(count, 2).device.type.startswith("cuda")


def test_memory_does_not_grow_with_the_height():
    def peak(height):
        pixels, valid = np.zeros((3, 32, 4096), np.uint8), np.ones((32, 4096), bool)
        window = SlidingWindow(as_red, 2, size=32)
        tracemalloc.start()
        places = {
            band.probabilities.data_ptr()
            for band in window(lambda top, rows: (pixels[:, :rows], valid[:rows]), height, 4096)
        }
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used, len(places)

    low, high = peak(320), peak(3200)
    assert high[0] < 1.2 * low[0]
    assert low[1] == high[1] == 1


class Convolutions(nn.Module):
    """A network whose answer at a pixel depends on 31 x 31 others, and on the window's border."""

    def __init__(self, image):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.layers = nn.ModuleList(
                nn.Sequential(
                    nn.Conv2d(n, m, 3, padding=d, dilation=d),
                    nn.BatchNorm2d(m, momentum=None, affine=False),
                )
                for n, m, d in ((3, 8, 1), (8, 8, 2), (8, 8, 4), (8, 8, 7), (8, 4, 1))
            )
        self(torch.from_numpy(image[None]))  # so that all four classes occur
        self.eval()

    @torch.no_grad()
    def forward(self, windows):
        features = windows.float() / 255
        for number, layer in enumerate(self.layers):
            features = layer(features if number == 0 else features.relu())
        return features.softmax(dim=1)


def smooth(height, width):
    """Noise with structure of 2 to 16 pixels."""
    torch.manual_seed(0)
    image = sum(
        nn.functional.interpolate(torch.rand(1, 3, height // s, width // s), (height, width))
        for s in (2, 4, 16)
    )
    return (image[0] / 3 * 255).byte().numpy()


def moved(overlap):
    """Share of pixels whose class changes when the grid moves by half a stride."""
    image = smooth(512, 512)
    network = Convolutions(image)
    stride = round(128 * (1 - overlap))
    one, other = (
        predict(SlidingWindow(network, 4, size=128, overlap=overlap, offset=offset), image)
        for offset in (0, stride // 2)
    )
    assert len(one.argmax(dim=0).unique()) == 4
    return (one.argmax(dim=0) != other.argmax(dim=0)).float().mean().item()


def test_a_shifted_grid_changes_few_pixels_and_many_more_without_overlap():
    with_overlap, without = moved(0.5), moved(0.0)
    assert with_overlap < 0.02
    assert without > 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 15}, "--window 15 is not at least 16"),
        ({"overlap": 1.0}, r"--overlap 1.0 is not in 0 to 0.9"),
        ({"overlap": -0.1}, "--overlap -0.1"),
        ({"overlap": float("nan")}, "--overlap nan"),
        ({"batch_size": 0}, "--batch-size 0 is not at least 1"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SlidingWindow(as_red, 2, **options)


def test_an_error_of_the_reader_reaches_the_caller():
    def read(top, rows):
        if top > 0:
            raise OSError("rows are missing")
        return reader(noise(100, 20))(top, rows)

    with pytest.raises(OSError, match="rows are missing"):
        list(SlidingWindow(as_red, 2, size=32)(read, 100, 20))
