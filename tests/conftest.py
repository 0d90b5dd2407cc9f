"""What all tests share: a cache of their own, one thread, small data in the real file layout."""

import logging
import os

import numpy as np
import pytest
import torch
from PIL import Image

from ignite_salak.classes import ClassMap
from ignite_salak.data.plantation import make_plantation


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory, monkeypatch):
    """A new cache folder for every test; the user's own is never touched."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("IGNITE_SALAK_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def own_logging():
    """Scripts write their log to stderr, which is another one in every test."""
    before = list(logging.root.handlers)
    yield
    for handler in list(logging.root.handlers):
        if type(handler) is logging.StreamHandler and handler not in before:
            logging.root.removeHandler(handler)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def plantation(tmp_path_factory):
    """Two folders with masks, two without; 8 photos of 16 patches of 32 x 32 pixels; read only."""
    root = tmp_path_factory.mktemp("plantation") / "data"
    return make_plantation(root, photos=8, photo_size=128, patch_size=32)


@pytest.fixture
def classes():
    """Three classes whose colours differ in every order of the channels."""
    return ClassMap(("background", "water", "road"), ((0, 0, 0), (255, 50, 10), (20, 60, 200)))


@pytest.fixture
def save():
    """Returns a function that saves pixels, and makes the folder."""

    def write(path, pixels, **options):
        path.parent.mkdir(parents=True, exist_ok=True)
        image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.asarray(pixels))
        image.save(path, **options)
        return path

    return write


@pytest.fixture
def add_patch(save):
    """Returns a function that writes ``folder/images/name.png`` and, where given, its mask."""

    def add(folder, name, mask=None, *, size=16, color=(90, 120, 60)):
        shape = (size, size) if mask is None else np.shape(mask)[:2]
        save(folder / "images" / f"{name}.png", np.full((*shape, 3), color, np.uint8))
        if mask is not None:
            save(folder / "masks" / f"{name}.png", np.asarray(mask, np.uint8))

    return add


@pytest.fixture
def settle():
    """Returns a function that dates all folders back, as if nothing had changed for long."""

    def date_back(root, seconds=1_000_000_000):
        for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
            os.utime(folder, (seconds, seconds))

    return date_back
