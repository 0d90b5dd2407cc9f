"""The pages as a browser gets them."""

import logging
import re
from html.parser import HTMLParser

import pytest

from ignite_salak.report import reporting, write_comparison, write_report

NASTY = ("back<ground>", "<script>alert(1)</script>", 'A & "B" $x_1$ é', "_hidden")
COLORS = ((0, 0, 0), (255, 255, 255), (255, 255, 0), (1, 2, 3))
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Text, pictures and tags of a page; refuses tags that are not closed."""

    def __init__(self, path):
        super().__init__()
        self.open, self.images, self.words, self.attributes = [], [], [], []
        content = path.read_text(encoding="utf-8")
        self.feed(content)
        self.content = content
        self.text = " ".join(" ".join(self.words).split())
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)


def check(page):
    """What every page must be: one file, no script, pictures with a text."""
    assert not re.search(r"https?://|<script|<link|url\(", page.content)
    for image in page.images:
        assert image["src"].startswith("data:image/")
        assert image["alt"]
    return page


def test_a_report_of_a_complete_run(folder):
    path = write_report(folder)
    assert path == folder / "report.html"
    page = check(Page(path))
    assert len(page.images) == 8 + 1 + 2  # curves, matrix, panels
    for words in (
        "a run",
        "Best validation mIoU 0.693",
        "at iteration 3,000",
        "3,000 of 3,000",
        "completed",
        "Minimum reached",
        "Good not reached",
        "not measured: needs a run of DiverseNet",
        "Iteration 2,000: gap 0.11 is above 0.10",
        "Confusion matrix of the best evaluation (iteration 3,000)",
        "best and last evaluation (iteration 3,000)",
        "--learning-rate 0.00025",
        "train_v3.py --data-root DATA",
        "2 labelled",
        "Snake Fruit",
    ):
        assert words in page.text, words
    assert "None: the folder has no panels" not in page.text
    assert sorted(p.name for p in folder.iterdir() if p.suffix == ".tmp") == []


def test_names_cannot_write_html(tmp_path, runs):
    folder = tmp_path / "a & b"
    runs.write(
        folder,
        config=runs.config(NASTY, COLORS),
        history=runs.history(NASTY),
        summary=runs.summary(4, 3000, 3000, warnings=[(1, "<b>class</b>")]),
    )
    page = check(Page(write_report(folder)))
    for name in (*NASTY, "<b>class</b>", "a & b"):
        assert name in page.text
    comparison = check(Page(write_comparison([folder, folder], tmp_path / "c.html")))
    for name in NASTY:
        assert name in comparison.text


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"iteration": 1, "loss": 1.0}], "Nothing to show: no evaluation yet"),
        ([{"iteration": 1, "loss": float("nan")}], "Nothing to show: not logged"),
        ([{"iteration": 1, "validation/mIoU": float("nan"), "gap": float("nan")}], "absent"),
    ],
)
def test_a_run_that_has_hardly_begun(tmp_path, runs, rows, words):
    page = check(Page(write_report(runs.write(tmp_path, config=runs.config(), history=rows))))
    for said in (
        words,
        "end not known (no summary.json)",
        "Not known: the run has no summary.json",
        "no summary.json with an evaluation",
        "None: the folder has no panels",
    ):
        assert said in page.text


def test_a_killed_run_says_so(folder, runs):
    runs.write(folder, summary=runs.summary(7, 2000, 2500, state="running"))
    page = Page(write_report(folder))
    assert "did not end properly (killed?)" in page.text
    assert "Confusion matrix of the last evaluation (iteration 2,500)" in page.text
    assert "That of the best evaluation is not known." in page.text


def test_config_without_the_facts_of_today(tmp_path, runs):
    config = runs.config()
    for name in ("thresholds", "class_weights", "sources", "environment"):
        del config[name]
    config["options"] = {"schedule": {}}
    page = check(Page(write_report(runs.write(tmp_path, config=config, history=runs.history()))))
    assert page.text.count("config.json does not say") == 2


def test_too_many_classes_for_a_matrix(tmp_path, runs):
    names = [f"class {index}" for index in range(41)]
    colors = [(index, 0, 0) for index in range(41)]
    runs.write(
        tmp_path,
        config=runs.config(names, colors),
        history=runs.history(names, total=500),
        summary=runs.summary(41, 500, 500),
    )
    assert "not drawn for more than 40 classes" in Page(write_report(tmp_path)).text


def test_pixels_of_another_batch_are_pointed_out(tmp_path, runs):
    config = runs.config(options={"data": {"input_size": 128}})
    runs.write(tmp_path, config=config, history=runs.history())
    assert "here it is 8 patches of 128 pixels" in Page(write_report(tmp_path)).text


def test_a_long_run_stays_small(tmp_path, runs):
    runs.write(tmp_path, config=runs.config(), history=runs.history(total=50_000))
    assert write_report(tmp_path).stat().st_size < 3_000_000


def test_runs_side_by_side(folder, tmp_path, runs):
    names, colors = ("__background__", "Jalan", "Kebun"), ((0, 0, 0), (9, 9, 9), (0, 255, 0))
    options = {"self_training": {"st_loss_weight": 0}}
    config = runs.config(names, colors, options)
    other = runs.write(tmp_path / "b", config=config, history=runs.history(names, level=0.5))
    path = tmp_path / "comparison.html"
    assert write_comparison([folder, other], path) == path
    page = check(Page(path))
    for words in (
        "2 runs side by side",
        "Best validation mIoU 0.693 0.493",
        "--st-loss-weight 1 0",
        "The class lists differ",
        "not in its list",
        "No panels.",
        "Not known: the run has no summary.json.",
        "gap 0.11 is above 0.10",
    ):
        assert words in page.text, words
    assert len(page.images) == 4 + 1 + 2


def test_the_highest_iou_of_a_class_stands_out(tmp_path, runs):
    folders = []
    for name, scores in (("a", (0.5, float("nan"))), ("b", (0.25, 0.5)), ("c", (0.125, 0.25))):
        row = {"iteration": 1, "validation/mIoU": 0.5}
        row |= {"validation/IoU/x": scores[0], "validation/IoU/y": scores[1]}
        config = runs.config(("x", "y"), COLORS[:2])
        folders.append(runs.write(tmp_path / name, config=config, history=[row]))
    content = write_comparison(folders, tmp_path / "c.html").read_text(encoding="utf-8")
    assert re.findall(r'<td class="best">.*?([0-9.]{5})\s*</td>', content, re.S) == [
        "0.500",
        "0.500",
    ]


def test_runs_of_one_name_are_told_apart(tmp_path, runs):
    folders = [tmp_path / name / "run" for name in ("on", "off")]
    for folder in folders:
        runs.write(folder, config=runs.config(), history=runs.history(total=500))
    page = Page(write_comparison(folders, tmp_path / "c.html"))
    for folder in folders:
        assert str(folder.resolve()) in page.text


def test_reporting_writes_when_the_block_is_left(folder, caplog):
    caplog.set_level(logging.INFO)
    with reporting(folder):
        assert not (folder / "report.html").exists()
    assert (folder / "report.html").exists()
    assert f"report: {folder / 'report.html'}" in caplog.text


def test_reporting_hides_no_exception(folder):
    with pytest.raises(KeyboardInterrupt), reporting(folder):
        raise KeyboardInterrupt
    assert (folder / "report.html").exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left"), RuntimeError("a bug")])
def test_trouble_with_the_page_is_one_warning(folder, monkeypatch, caplog, error):
    def fail(*arguments):
        raise error

    monkeypatch.setattr("ignite_salak.report.page.write_whole", fail)
    with reporting(folder):
        pass
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "no report:" in record.message
    assert "experiments.report" in record.message
