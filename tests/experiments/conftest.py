"""A plantation small enough to train on in seconds, and memory that is not asked."""

import pytest

from experiments import shortage
from ignite_salak.data.plantation import make_plantation

TINY = [
    "--backbone=resnet18",
    "--no-pretrained",
    "--decoder-channels=16",
    "--scale-min=32",
    "--scale-max=48",
    "--batch-size=2",
    "--num-steps=6",
    "--eval-every=3",
    "--warmup-iters=2",
    "--st-start-iter=2",
    "--save-latest-every=2",
    "--save-pred-every=4",
    "--log-every=2",
    "--num-workers=0",
    "--threads=1",
    "--confidence-threshold=0.2",
    "--no-use-classwise-threshold",
    "--optimizer=adamw",
    "--learning-rate=0.003",
    "--ema-decay=0.9",
    "--no-tensorboard",
    "--panels=1",
]


@pytest.fixture(scope="session")
def shared_plantation(tmp_path_factory):
    """Do not change its files."""
    return make_plantation(
        tmp_path_factory.mktemp("plantation"), photos=8, photo_size=128, patch_size=32
    )


@pytest.fixture
def plantation(tmp_path):
    """A plantation of one's own, to damage."""
    return make_plantation(tmp_path / "data", photos=8, photo_size=128, patch_size=32)


@pytest.fixture(scope="session")
def tiny_flags():
    """Flags of a run of seconds."""
    return list(TINY)


@pytest.fixture
def few_masks(plantation, tmp_path):
    """A list of two labelled photos; every mask of the others is a file that cannot be read."""
    listing = tmp_path / "labeled.txt"
    listing.write_text("DJI_0001.JPG\nDJI_0002.JPG\n", encoding="utf-8")
    kept = ("DJI_0001_", "DJI_0002_")
    hidden = [p for p in plantation.root.rglob("masks/*.png") if not p.name.startswith(kept)]
    assert hidden
    for path in hidden:
        path.write_bytes(b"no mask")
    return listing


@pytest.fixture
def _no_device(monkeypatch):
    monkeypatch.setattr(shortage, "_gpu_memory", lambda device: (None, None, None))


@pytest.fixture
def _host(monkeypatch):
    monkeypatch.setattr(shortage, "_host_memory", lambda: (2**33, 2**29))
