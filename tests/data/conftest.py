"""GeoTIFFs, an index and lists for the tests of data."""

import numpy as np
import pytest

from tests.data.indexes import make_index


@pytest.fixture
def geotiff(tmp_path):
    """Returns a function that writes [H, W] or [H, W, B] as a GeoTIFF."""
    rasterio = pytest.importorskip("rasterio", reason="the extra geo is not installed")

    def save(name, pixels, colormap=None, left=500.0, crs="EPSG:32749", **options):
        bands = np.atleast_3d(pixels).transpose(2, 0, 1)
        profile = {"driver": "GTiff", "count": len(bands), "dtype": bands.dtype.name} | options
        transform = rasterio.transform.from_origin(left, 9000, 0.5, 0.5)
        path = tmp_path / name
        with rasterio.open(
            path,
            "w",
            height=bands.shape[1],
            width=bands.shape[2],
            transform=transform,
            crs=crs,
            **profile,
        ) as file:
            file.write(bands)
            if colormap:
                file.write_colormap(1, colormap)
        return path

    return save


@pytest.fixture
def index(tmp_path):
    """Two labelled flights, some photos in part, and one without masks, of the same names."""
    return make_index(
        tmp_path,
        {
            "f1": {f"DJI_{i}": "mm" if i % 3 else "m--" for i in range(1, 21)},
            "f2": {f"DJI_{i}": "mmm" for i in range(95, 106)},
            "f3": {f"DJI_{i}": "--" for i in range(1, 11)},
        },
    )


@pytest.fixture
def write(tmp_path):
    def write_list(text, name="list.txt", encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes(text.encode(encoding))
        return path

    return write_list
