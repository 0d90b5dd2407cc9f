"""Ways to use a trained model: test-time augmentation, and images of another size."""

from ignite_salak.inference.resized import AtInputSize
from ignite_salak.inference.tta import TestTimeAugmentation

__all__ = ["AtInputSize", "TestTimeAugmentation"]
