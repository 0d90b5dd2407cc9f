"""summary.json in every way a run can go."""

import json

import pytest
import torch
from ignite.engine import Events

from ignite_salak import files
from ignite_salak.engines import create_trainer
from ignite_salak.events import TrainingEvents
from ignite_salak.handlers import Best, EvaluationResult, Health, RunSummary

NAMES = ("background", "Jalan")


def run(path, scores, *, start=0, total=6, act=None):
    """Evaluates every second iteration with one of ``scores``; ``act`` may end the run."""
    best = [-float("inf"), 0]

    def step(engine, batch):
        return {"loss": torch.tensor(1.0)}

    def evaluate(engine):
        iteration = engine.state.iteration
        if iteration % 2:
            return
        score = scores[iteration]
        previous = best[0] if score > best[0] else None
        if previous is not None:
            best[:] = score, iteration
        engine.state.evaluation = EvaluationResult(
            iteration,
            {"mIoU": score, "IoU/background": score, "IoU/Jalan": score},
            {"mIoU": score},
            torch.full((2, 2), iteration),
            Best(*best, path.with_name("best.pth"), previous),
        )
        engine.fire_event(TrainingEvents.EVALUATED)

    trainer = create_trainer(step)
    health = Health(NAMES, gap_from=0)
    summary = RunSummary(path, health, NAMES, total=total)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, evaluate)
    trainer.add_event_handler(TrainingEvents.EVALUATED, health.check_evaluation)
    summary.attach(trainer)
    if act is not None:
        trainer.add_event_handler(Events.ITERATION_COMPLETED, act)
    trainer.load_state_dict({"iteration": start, "epoch_length": total, "max_epochs": 1})
    with summary:
        trainer.run(range(total), max_epochs=1, epoch_length=total)
    return read(path)


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def at(iteration, do):
    def act(engine):
        if engine.state.iteration == iteration:
            do(engine)

    return act


def test_best_and_last_with_their_confusion(tmp_path):
    content = run(tmp_path / "summary.json", {2: 0.4, 4: 0.5, 6: 0.49})
    assert (content["state"], content["iteration"], content["total"]) == ("completed", 6, 6)
    assert content["best"] == {"iteration": 4, "score": 0.5, "confusion": [[4, 4], [4, 4]]}
    assert content["last"] == {"iteration": 6, "score": 0.49, "confusion": [[6, 6], [6, 6]]}
    assert content["classes"] == list(NAMES)
    assert content["warnings"] == []


def test_a_score_that_is_no_number_is_null(tmp_path):
    content = run(tmp_path / "summary.json", {2: float("nan")}, total=2)
    assert content["best"] is None
    assert content["last"]["score"] is None


def test_warnings_with_the_iteration_of_their_first_time(tmp_path):
    content = run(tmp_path / "summary.json", {2: 0.4, 4: 0.0, 6: 0.0})
    signs = [(entry["sign"], entry["iteration"]) for entry in content["warnings"]]
    assert signs == [("fall", 4), ("class 1", 4)]
    assert "fell from 0.40" in content["warnings"][0]["text"]


@pytest.mark.parametrize(
    ("end", "state"),
    [
        (lambda engine: engine.terminate(skip_completed=True), "interrupted"),
        (lambda engine: engine.terminate(), "stopped early"),
    ],
)
def test_how_a_run_ended_before_its_time(tmp_path, end, state):
    content = run(tmp_path / "summary.json", {2: 0.4, 4: 0.5}, act=at(5, end))
    assert (content["state"], content["iteration"]) == (state, 5)
    assert content["last"]["iteration"] == 4


@pytest.mark.parametrize(
    ("error", "state"), [(ValueError, "failed"), (KeyboardInterrupt, "interrupted")]
)
def test_an_exception_is_told_and_goes_on(tmp_path, error, state):
    def fail(engine):
        raise error

    path = tmp_path / "summary.json"
    with pytest.raises(error):
        run(path, {2: 0.4}, act=at(3, fail))
    assert (read(path)["state"], read(path)["last"]["iteration"]) == (state, 2)


def test_after_a_kill_the_file_says_running(tmp_path):
    path, seen = tmp_path / "summary.json", []
    run(path, {2: 0.4, 4: 0.5, 6: 0.6}, act=at(5, lambda engine: seen.append(read(path))))
    assert (seen[0]["state"], seen[0]["last"]["iteration"]) == ("running", 4)


def test_a_run_that_starts_says_running_at_once(tmp_path):
    path, seen = tmp_path / "summary.json", []
    run(path, {2: 0.4}, total=2)
    run(path, {2: 0.4}, total=2, act=at(1, lambda engine: seen.append(read(path))))
    assert (seen[0]["state"], seen[0]["best"]) == ("running", None)


def test_a_resumed_run_keeps_the_earlier_best_and_warnings(tmp_path):
    path = tmp_path / "summary.json"
    run(path, {2: 0.5, 4: 0.0, 6: 0.0})
    content = run(path, {6: float("nan"), 8: float("nan")}, start=4, total=8)
    assert content["best"] == {"iteration": 2, "score": 0.5, "confusion": [[2, 2], [2, 2]]}
    assert (content["last"]["iteration"], content["total"]) == (8, 8)
    assert [entry["iteration"] for entry in content["warnings"]] == [4, 4]


def test_a_resumed_run_drops_what_lies_behind_its_start(tmp_path):
    path, seen = tmp_path / "summary.json", []
    run(path, {2: 0.3, 4: 0.1, 6: 0.5})
    look = at(4, lambda engine: seen.append(read(path)))
    run(path, {4: float("nan"), 6: 0.1}, start=3, act=look)
    assert seen[0]["best"] is None
    assert [entry["sign"] for entry in seen[0]["warnings"]] == []
    assert seen[0]["last"]["confusion"] == [[4, 4], [4, 4]]


@pytest.mark.parametrize("text", ["", "[]", '{"best": 3}', '{"best": {}, "last": null}'])
def test_a_damaged_earlier_file_costs_a_warning(tmp_path, text, caplog):
    path = tmp_path / "summary.json"
    path.write_text(text, encoding="utf-8")
    content = run(path, {4: 0.3}, start=3, total=4)
    assert content["best"]["iteration"] == 4
    assert "begun anew" in caplog.text


def test_a_full_disk_costs_warnings_and_not_the_run(tmp_path, monkeypatch, caplog):
    path = tmp_path / "summary.json"
    path.write_text("{}", encoding="utf-8")

    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    assert run(path, {2: 0.4}, total=2) == {}
    assert "No space left on device; the run goes on" in caplog.text


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr("ignite_salak.handlers.run_summary.idist.get_rank", lambda: 1)
    with pytest.raises(FileNotFoundError):
        run(tmp_path / "summary.json", {2: 0.4}, total=2)
