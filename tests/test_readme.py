"""What the README says is true of today's code."""

import ast
import dataclasses
import importlib
import inspect
import itertools
import re
import typing
from pathlib import Path

import pytest

from ignite_salak.events import TrainingEvents
from ignite_salak.handlers import EvaluationResult

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FLAGS = (ROOT / "experiments" / "FLAGS.md").read_text(encoding="utf-8")


def docstrings(kind):
    """The string below every field of a dataclass and its bases, in one line."""
    texts = {}
    for base in filter(dataclasses.is_dataclass, reversed(kind.__mro__)):
        [definition] = ast.parse(inspect.getsource(base)).body
        for field, text in itertools.pairwise(definition.body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                texts[field.target.id] = " ".join(text.value.value.split())
    return texts


def shown(default):
    if isinstance(default, tuple):
        return " ".join(map(str, default))
    if isinstance(default, bool):
        return "on" if default else "off"
    return "" if default in (None, dataclasses.MISSING) else str(default)


def default_of(field, group):
    """What a flag is without being given; a script may start a group from values of its own."""
    if group is not dataclasses.MISSING:
        return getattr(group, field.name)
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def flag_rows(kind, group=dataclasses.MISSING):
    """The rows of a script's flag table; groups are written out where they stand."""
    types, texts = typing.get_type_hints(kind, include_extras=True), docstrings(kind)
    for field in (field for field in dataclasses.fields(kind) if field.init):
        annotation = types[field.name]
        if dataclasses.is_dataclass(annotation):
            yield from flag_rows(annotation, default_of(field, group))
            continue
        default = default_of(field, group)
        flag = f"`--{field.name.replace('_', '-')}`"
        if isinstance(default, bool):
            flag += f" / `--no-{field.name.replace('_', '-')}`"
        if typing.get_origin(annotation) is typing.Annotated:  # tyro.conf.Positional
            flag = f"`{field.name.upper()}`"
        yield f"| {flag} | {shown(default)} | {texts[field.name]} |"


SCRIPTS = [
    importlib.import_module(f"experiments.{path.stem}")
    for path in sorted((ROOT / "experiments").glob("*.py"))
    if "sys.exit(run_script(main" in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_the_flag_tables_are_those_of_today(script):
    name = script.__name__.removeprefix("experiments.")
    page = README if name == "train_v3" else FLAGS
    [section] = re.findall(
        rf"^## Flags of {name}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL
    )
    rows = [line for line in section.splitlines() if re.match(r"\| `", line)]
    if name == "train_v3":
        assert rows.pop(0).startswith("| `--config` |")
    assert rows == list(flag_rows(script.Options))


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
