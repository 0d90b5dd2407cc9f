"""Events of a training run."""

from ignite_salak.engines import create_trainer
from ignite_salak.events import TrainingEvents


def test_training_events_can_be_attached_and_fired():
    fired = []

    def step(engine, batch):
        for event in TrainingEvents:
            engine.fire_event(event)
        return {}

    trainer = create_trainer(step)
    for event in TrainingEvents:
        trainer.add_event_handler(event, lambda engine, name: fired.append(name), event.name)
    trainer.run([0])
    assert fired == [event.name for event in TrainingEvents]
