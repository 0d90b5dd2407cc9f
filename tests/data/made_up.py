"""A made-up orthomosaic and its mask."""

import numpy as np

HEIGHT, WIDTH = 300, 40
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(1, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
LABELS = RNG.integers(0, 3, (HEIGHT, WIDTH)).astype(np.uint8)
