"""GeoTIFFs for the tests of data."""

import numpy as np
import pytest


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
