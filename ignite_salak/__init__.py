"""Semi-supervised semantic segmentation of crops from drones, as Ignite engines with handlers."""

__version__ = "0.1.0"
