"""Small rasters in the real file format."""

import warnings

import numpy as np
import pytest


@pytest.fixture
def write_raster(tmp_path):
    """Returns a function that writes bands [bands, H, W] as GeoTIFF in tmp_path."""
    rasterio = pytest.importorskip("rasterio")

    def write(name, pixels, colormap=None, bands_are=None, mask=None, **profile):
        pixels = np.asarray(pixels)
        path = tmp_path / name
        count, height, width = pixels.shape
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with rasterio.open(
                path,
                "w",
                driver="GTiff",
                count=count,
                height=height,
                width=width,
                dtype=pixels.dtype,
                **profile,
            ) as dataset:
                dataset.write(pixels)
                if colormap is not None:
                    dataset.write_colormap(1, colormap)
                if bands_are is not None:
                    dataset.colorinterp = [rasterio.enums.ColorInterp[name] for name in bands_are]
                if mask is not None:
                    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
                        dataset.write_mask(mask)
        return path

    return write


@pytest.fixture
def utm():
    """Georeference of the Salak slopes of Central Java: UTM 49S, 10 cm."""
    rasterio = pytest.importorskip("rasterio")
    return {
        "crs": "EPSG:32749",
        "transform": rasterio.transform.from_origin(430_000.0, 9_160_000.0, 0.1, 0.1),
    }
