"""What the services wrote, read back from their files or by a server that stands in for theirs."""

import base64
import json
import os
import signal
import struct
import subprocess
import sys
import time
import zipfile
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ignite_salak.events import TrainingEvents
from ignite_salak.handlers import (
    ClearMLMonitor,
    TensorBoardMonitor,
    WandBMonitor,
)

OPTIONS = {"run": {"seed": 7, "restore_from": None}, "demo": True}


# TensorBoard


def events(folder):
    return EventAccumulator(str(folder), size_guidance={"tensors": 0, "images": 0}).Reload()


def scalars(folder, tag):
    return [(event.step, event.value) for event in events(folder).Scalars(tag)]


def test_tensorboard_has_losses_and_scores_by_iteration(run, tmp_path):
    run(tmp_path, TensorBoardMonitor(tmp_path / "logs", OPTIONS))
    written = tmp_path / "logs"
    assert scalars(written, "train/loss") == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]
    assert scalars(written, "validation/mIoU")[-1] == (4, 0.5)
    assert scalars(written, "validation/gap")[-1] == (4, 0.25)
    assert scalars(written, "training/mIoU")[-1] == (4, 0.75)
    assert scalars(written, "best/mIoU") == [(1, pytest.approx(0.6)), (2, pytest.approx(0.6))]
    assert scalars(written, "best/iteration") == [(1, 1), (2, 2)]
    assert "validation/IoU/absent" not in events(written).Tags()["scalars"]


def test_tensorboard_has_pictures_and_options(run, tmp_path):
    run(tmp_path, TensorBoardMonitor(tmp_path / "logs", OPTIONS))
    written = events(tmp_path / "logs")
    images = written.Images("pictures/validation")
    assert [image.step for image in images] == [1, 2, 3, 4]
    assert (images[0].height, images[0].width) == (12, 20)
    [text] = written.Tensors("options/text_summary")
    [table] = text.tensor_proto.string_val
    assert "| run.seed | `7` |" in table.decode().splitlines()


def test_tensorboard_of_a_resumed_run_replaces_what_came_after(run, tmp_path):
    run(tmp_path, TensorBoardMonitor(tmp_path / "logs", OPTIONS))
    run(tmp_path, TensorBoardMonitor(tmp_path / "logs", OPTIONS), start=2, total=5)
    steps = [step for step, _ in scalars(tmp_path / "logs", "train/loss")]
    assert steps == [1, 2, 3, 4, 5]


def other_process(code, folder, **environment):
    """Runs code that knows this module, ``run`` and ``folder``, in a process of its own."""
    head = (
        "import logging, pathlib, sys; logging.basicConfig(format='%(message)s'); "
        f"sys.path.insert(0, {str(Path(__file__).parent)!r}); "
        "from test_monitors import *; from conftest import train as run; "
        f"folder = pathlib.Path({str(folder)!r})\n"
    )
    # A task of this process must not be taken for that of the other.
    files = ("CLEARML_CONFIG_FILE", "CLEARML_CACHE_DIR")
    ours = {n for n in os.environ if n.startswith(("CLEARML_", "TRAINS_")) and n not in files}
    inherited = {name: value for name, value in os.environ.items() if name not in ours}
    done = subprocess.run(
        [sys.executable, "-c", head + code],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
        env={**inherited, "PYTHONIOENCODING": "utf-8", **environment},
    )
    assert done.returncode == 0, done.stderr
    return done


FULL_DISK = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
trainer = run(folder, TensorBoardMonitor(folder / "logs", OPTIONS), total=200)
print("iterations", trainer.state.iteration)
"""


@pytest.mark.skipif(os.name == "nt", reason="needs a limit on file sizes to play a full disk")
def test_tensorboard_on_a_full_disk_is_one_warning(tmp_path):
    done = other_process(FULL_DISK, tmp_path)
    assert done.stdout == "iterations 200\n"
    assert done.stderr.count("TensorBoardMonitor reports no more") == 1, done.stderr


# ClearML


@pytest.fixture(scope="module")
def clearml_files(tmp_path_factory):
    """A folder of its own for clearml, whose configuration is read once in a process."""
    folder = tmp_path_factory.mktemp("clearml")
    config = folder / "clearml.conf"
    config.write_text("sdk { development { report_use_subprocess: false } }", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("CLEARML_")]:
            patch.delenv(name)
        patch.setenv("CLEARML_CONFIG_FILE", str(config))
        patch.setenv("CLEARML_CACHE_DIR", str(folder))
        yield folder
        with suppress(ValueError):  # it logs in, without credentials
            ClearMLMonitor("", "", {})._switch()


def only_offline_session(folder, before=()):
    [archive] = set(folder.glob("offline/*.zip")) - set(before)
    with zipfile.ZipFile(archive) as file:
        return {name: file.read(name) for name in file.namelist()}


def test_clearml_offline_archive_has_everything(run, tmp_path, clearml_files):
    trainer = run(tmp_path, ClearMLMonitor("salak", "a run", OPTIONS, offline=True))
    assert trainer.state.iteration == 4
    files = only_offline_session(clearml_files)
    task = json.loads(files["task.json"])
    assert task["name"] == "a run"
    assert not any(task.get("script", {}).values())  # no source, no packages
    assert task["hyperparams"]["options"]["run/seed"]["value"] == "7"

    reported = [event for line in files["metrics.jsonl"].splitlines() for event in json.loads(line)]
    plain = [event for event in reported if event["type"] == "training_stats_scalar"]
    points = {(e["metric"], e["variant"], e["iter"]): e["value"] for e in plain}
    twice = len(plain) - len(points)
    assert twice == 2  # the summary, of iterations 1 and 2; nothing is hooked a second time
    assert points["loss", "train", 3] == 3.0
    assert points["mIoU", "validation", 4] == 0.5
    assert points["mIoU", "training", 4] == 0.75
    assert points["validation/IoU", "road", 4] == 0.25
    single = {e["variant"]: e["value"] for e in plain if e["metric"] == "Summary"}
    assert single == {"best mIoU": 0.6, "best iteration": 2}

    pictures = [event for event in reported if event["type"] == "training_debug_image"]
    assert {(event["metric"], event["variant"]) for event in pictures} == {
        ("pictures", "validation")
    }
    assert [event["iter"] for event in pictures] == [1, 2, 3, 4]
    assert len([name for name in files if name.endswith(".jpeg")]) == 4

    [artifact] = task["execution"]["artifacts"]
    assert artifact["key"] == "best_model"
    [saved] = [name for name in files if name.endswith("best_model_ema.pth")]
    assert files[saved] == (tmp_path / "best_model_ema.pth").read_bytes()


def test_clearml_without_credentials_is_one_warning(run, tmp_path, clearml_files, caplog, warnings):
    before = list(clearml_files.glob("offline/*.zip"))
    run(tmp_path, ClearMLMonitor("salak", "first", OPTIONS, offline=True), total=1)
    between = list(clearml_files.glob("offline/*.zip"))
    assert len(between) == len(before) + 1
    trainer = run(tmp_path, ClearMLMonitor("salak", "second", OPTIONS))
    assert trainer.state.iteration == 4
    assert "--clearml-offline" in caplog.text
    assert len([m for m in warnings() if "ClearMLMonitor" in m]) == 1
    assert list(clearml_files.glob("offline/*.zip")) == between


class ClearMLServer(BaseHTTPRequestHandler):
    """As much of a ClearML server as one run needs; keeps what it was asked."""

    requests: ClassVar[list[tuple[str, str]]] = []
    tasks: ClassVar[dict[str, dict]] = {}
    models: ClassVar[dict[str, dict]] = {}

    def do_GET(self):
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size).decode("utf-8", "replace")
        name = self.path.partition("?")[0].rpartition("/")[2]
        self.requests.append((name, body))
        arguments = json.loads(body) if "." in name and body and "batch" not in name else {}
        answer = {"meta": {"result_code": 200}, "data": self.answer(name, arguments)}
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_PUT = do_GET

    def answer(self, name, arguments):
        if name == "auth.login":
            claims = {"exp": time.time() + 3600, "api_version": "2.30", "env": "test"}
            parts = [json.dumps(part).encode() for part in ({"alg": "HS256"}, claims, {})]
            return {
                "token": ".".join(base64.urlsafe_b64encode(p).decode().rstrip("=") for p in parts)
            }
        known = self.tasks if name.startswith("tasks.") else self.models
        one = "task" if known is self.tasks else "model"
        if name.startswith("projects."):
            project = {"id": "0" * 32, "name": "salak"}
            return {"project": project, "projects": [project]}
        if name.endswith(".create"):
            number = f"{len(known) + 1:032x}"
            empty = {"output": {}, "execution": {}, "script": {}, "hyperparams": {}, "models": {}}
            known[number] = {"id": number, "status": "in_progress", **empty, **arguments}
            return {"id": number}
        entry = known.get(arguments.get(one), {})
        if name.endswith(".edit"):
            entry |= {key: value for key, value in arguments.items() if key not in known}
        return {one: entry, "tasks": list(self.tasks.values()), "updated": 1}

    def log_message(self, *arguments):
        pass


ONLINE = """
import threading
from http.server import ThreadingHTTPServer
server = ThreadingHTTPServer(("127.0.0.1", 0), ClearMLServer)
threading.Thread(target=server.serve_forever, daemon=True).start()
for part in ("API", "WEB", "FILES"):
    os.environ[f"CLEARML_{part}_HOST"] = f"http://127.0.0.1:{server.server_port}"
run(folder, ClearMLMonitor("salak", "online", OPTIONS))
seen = [(name, body[:20000]) for name, body in ClearMLServer.requests]
(folder / "seen.json").write_text(json.dumps(seen), encoding="utf-8")
"""
KEYS = {"CLEARML_API_ACCESS_KEY": "A" * 20, "CLEARML_API_SECRET_KEY": "B" * 40}


@pytest.mark.slow
def test_clearml_online_reports_to_the_server(tmp_path, clearml_files):
    done = other_process(ONLINE, tmp_path, **KEYS)
    assert "reports no more" not in done.stderr
    seen = json.loads((tmp_path / "seen.json").read_text(encoding="utf-8"))
    asked = [name for name, _ in seen]
    assert "tasks.completed" in asked
    [created] = [json.loads(body) for name, body in seen if name == "tasks.create"]
    assert created["name"] == "online"
    events = [
        json.loads(line) for n, b in seen if n == "events.add_batch" for line in b.splitlines()
    ]
    points = {(e["metric"], e["variant"], e["iter"]): e["value"] for e in events if "value" in e}
    assert points["loss", "train", 3] == 3.0
    assert points["mIoU", "validation", 4] == 0.5
    models = [json.loads(body) for name, body in seen if name == "models.edit"]
    assert {(model["name"], model["framework"]) for model in models} == {
        ("best_model_ema", "PyTorch")
    }
    assert models[-1]["uri"].endswith("best_model_ema.pth")
    uploads = [body for name, body in seen if name == "" and "best_model_ema.pth" in body]
    assert len(uploads) == 1


AWAY = """
monitor = ClearMLMonitor("salak", "away", OPTIONS)
monitor.limit = 3.0
trainer = run(folder, monitor)
print("iterations", trainer.state.iteration)
"""


@pytest.mark.slow
def test_clearml_with_its_server_away_is_one_warning_and_the_process_ends(tmp_path, clearml_files):
    nowhere = {f"CLEARML_{part}_HOST": "http://127.0.0.1:9" for part in ("API", "WEB", "FILES")}
    done = other_process(AWAY, tmp_path, **KEYS, **nowhere)
    assert done.stdout == "iterations 4\n"
    assert done.stderr.count("reports no more: no answer within 3 seconds") == 1, done.stderr


def test_clearml_leaves_signals_streams_and_random_numbers_alone(tmp_path, clearml_files):
    def state(*_):
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        drawn = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
        return handlers, sys.stdout, sys.stderr, drawn

    trainer = Engine(state)
    trainer.register_events(*TrainingEvents)
    monitor = ClearMLMonitor("salak", "quiet", OPTIONS, offline=True)
    monitor.attach(trainer)
    archives = list(clearml_files.glob("offline/*.zip"))
    before = state()
    trainer.run([0], max_epochs=1)
    assert trainer.state.output == before
    assert state() == before
    assert len(list(clearml_files.glob("offline/*.zip"))) == len(archives) + 1


# Weights & Biases


@pytest.fixture
def wandb_files(tmp_path, monkeypatch):
    """No key, no mode, and folders of its own."""
    wandb = pytest.importorskip("wandb", reason="the extra wandb is not installed")
    wandb.teardown()  # it reads the environment once, when it is first used
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "wandb-own"))
    yield tmp_path
    wandb.teardown()


def records(path):
    """Reads the records of a .wandb file, which is a log of LevelDB with a header of its own."""
    import wandb
    from wandb.proto.wandb_internal_pb2 import Record

    wandb.teardown()  # the end of wandb's process; before, what it wrote may not be on the disk
    content, position, parts = path.read_bytes(), 7, []
    while position + 7 <= len(content):
        room = 32768 - position % 32768
        if room < 7:
            position += room
            continue
        _, size, kind = struct.unpack("<IHB", content[position : position + 7])
        parts.append(content[position + 7 : position + 7 + size])
        position += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(b"".join(parts))
            parts = []


def items(entries):
    found = {}
    for entry in entries:
        key = entry.key or "/".join(entry.nested_key)
        found[key] = json.loads(entry.value_json)
    return found


def test_wandb_offline_file_has_everything(run, wandb_files):
    monitor = WandBMonitor("salak", "a run", OPTIONS, wandb_files, mode="offline")
    assert run(wandb_files, monitor).state.iteration == 4
    [written] = wandb_files.glob("wandb/offline-run-*/*.wandb")
    found = list(records(written))

    starts = [record.run for record in found if record.HasField("run")]
    assert (starts[0].project, starts[0].display_name) == ("salak", "a run")
    assert items(starts[0].config.update)["run"] == OPTIONS["run"]

    history = {row["_step"]: row for row in (items(r.history.item) for r in found) if row}
    picture = "pictures/validation"
    assert sorted(history) == [1, 2, 3, 4]
    assert history[3]["train/loss"] == 3.0
    assert history[3]["validation/mIoU"] == 0.5
    assert history[3]["validation/IoU/road"] == 0.25
    assert history[3]["training/mIoU"] == 0.75
    assert history[3][f"{picture}/_type"] == "image-file"
    assert (history[3][f"{picture}/height"], history[3][f"{picture}/width"]) == (12, 20)
    assert len(list(written.parent.glob("files/media/images/**/*.png"))) == 4

    summary = {}
    for record in found:
        summary |= items(record.summary.update)
    assert (summary["best/mIoU"], summary["best/iteration"]) == (0.6, 2)

    [artifact] = [record.artifact for record in found if record.HasField("artifact")]
    assert artifact.type == "model"
    assert "best" in artifact.aliases
    [entry] = artifact.manifest.contents
    assert entry.path == "best_model_ema.pth"
    assert entry.size == (wandb_files / "best_model_ema.pth").stat().st_size


def test_wandb_of_a_resumed_run_begins_where_it_resumes(run, wandb_files):
    run(wandb_files, WandBMonitor("p", "n", {}, wandb_files, mode="offline"), start=2)
    [written] = wandb_files.glob("wandb/offline-run-*/*.wandb")
    steps = [items(r.history.item)["_step"] for r in records(written) if r.HasField("history")]
    assert steps == [3, 4]


@pytest.mark.parametrize(("mode", "runs"), [("disabled", 0), ("offline", 1)])
def test_wandb_mode_of_the_environment_is_respected(
    run, wandb_files, monkeypatch, mode, runs, warnings
):
    monkeypatch.setenv("WANDB_MODE", mode)
    assert run(wandb_files, WandBMonitor("p", "n", {}, wandb_files)).state.iteration == 4
    assert len(list(wandb_files.glob("wandb/*run-*/*.wandb"))) == runs
    assert warnings() == []


def test_wandb_without_key_and_not_offline_is_one_warning_and_no_prompt(
    run, wandb_files, caplog, warnings
):
    trainer = run(wandb_files, WandBMonitor("salak", "n", {}, wandb_files))
    assert trainer.state.iteration == 4
    assert len(warnings()) == 1
    assert "wandb login" in caplog.text
    assert "--wandb-mode offline" in caplog.text


def test_wandb_with_its_server_away_is_one_warning(run, wandb_files, monkeypatch, warnings):
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monitor = WandBMonitor("p", "n", {}, wandb_files)
    monitor.limit = 6.0
    trainer = run(wandb_files, monitor)
    assert trainer.state.iteration == 4
    assert len([m for m in warnings() if "WandBMonitor reports no more" in m]) == 1
