"""Networks."""

from ignite_salak.models.deeplabv3plus import DeepLabV3Plus
from ignite_salak.models.encoders import build_encoder

__all__ = ["DeepLabV3Plus", "build_encoder"]
