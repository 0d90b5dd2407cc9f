"""What the README says is true of today's code."""

import dataclasses
import re
from pathlib import Path

from experiments.train_v3 import Options
from ignite_salak.events import TrainingEvents
from ignite_salak.handlers import EvaluationResult

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def options():
    """Flag names and defaults, as the table writes them."""
    shown = {"--config": ""}
    for group in dataclasses.fields(Options):
        value = getattr(Options(), group.name)
        fields = {group.name: value}
        if dataclasses.is_dataclass(value):
            fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        for name, default in fields.items():
            if isinstance(default, tuple):
                default = " ".join(map(str, default))
            elif isinstance(default, bool):
                default = "on" if default else "off"
            shown[f"--{name.replace('_', '-')}"] = "" if default is None else str(default)
    return shown


def test_the_flag_table_is_complete_and_its_defaults_are_todays():
    rows = re.findall(r"^\| `(--[\w-]+)`[^|]*\| ([^|]*) \|", README, flags=re.MULTILINE)
    assert {flag: default.strip() for flag, default in rows} == options()


def test_files_that_the_readme_names_exist():
    for name in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"`((?:data|models|steps|handlers|metrics)/[\w./]*)`", README):
        assert (ROOT / "ignite_salak" / name).exists(), name


def test_ci_runs_the_readmes_commands():
    commands = re.findall(r"^(pip install .*)$", README, flags=re.MULTILINE)
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert len(commands) == 2
    for command in commands:
        assert command in script


def test_the_example_handler_works():
    [code] = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    definitions, _, wiring = code.partition("\n\ntrainer = ")
    assert wiring
    names = {}
    exec(definitions, names)

    def step(engine, score):
        engine.state.evaluation = EvaluationResult(engine.state.iteration, {"mIoU": score}, {})
        engine.fire_event(TrainingEvents.EVALUATED)
        return {}

    trainer = names["create_trainer"](step)
    names["StopAtTarget"](0.76).attach(trainer)
    trainer.run([0.5, 0.75, 0.77, 0.9])
    assert trainer.state.iteration == 3
