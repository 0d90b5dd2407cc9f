"""Counting pseudo-labelled pixels."""

import pytest
import torch
from ignite.engine import Engine

from ignite_salak.handlers import STPixelCounter

NAMES = ("background", "water", "crop")


def test_counts_per_batch_per_class_and_over_the_run():
    engine = Engine(lambda engine, batch: {"st_px_per_class": torch.tensor(batch)})
    counter = STPixelCounter(NAMES)
    counter.attach(engine)
    engine.run([[0, 5, 7], [0, 1, 2]])
    assert counter.totals.tolist() == [0, 6, 9]
    output = engine.state.output
    assert {name: float(v) for name, v in output.items() if name.startswith("st_px/")} == {
        "st_px/water": 1.0,
        "st_px/crop": 2.0,
    }


def test_state_round_trip_does_not_alias():
    counter = STPixelCounter(NAMES)
    counter.totals += 3
    other = STPixelCounter(NAMES)
    other.load_state_dict(counter.state_dict())
    counter.totals += 1
    assert other.totals.tolist() == [3, 3, 3]
    with pytest.raises(ValueError, match="totals"):
        other.load_state_dict({})
