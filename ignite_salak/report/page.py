"""report.html of a run, and the page that compares several: one file each, no network."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2

import ignite_salak
from ignite_salak.files import write_whole
from ignite_salak.plots import confusion_figure
from ignite_salak.ranks import is_first
from ignite_salak.report import tables
from ignite_salak.report.criteria import judge
from ignite_salak.report.curves import Chart, comparison_charts, draw, picture, run_charts
from ignite_salak.report.images import find_panels
from ignite_salak.report.run import Run, read_run

__all__ = ["reporting", "write_comparison", "write_report"]

_LOGGER = logging.getLogger(__name__)
_MOST_CLASSES = 40  # of a confusion matrix that can still be read


def write_report(folder: Path) -> Path:
    """Writes report.html into the folder of a run.

    Returns:
        The file.

    Raises:
        FileNotFoundError: the folder is not that of a run, or nothing is logged yet.
        ValueError: a file of the run is damaged.
        OSError: the page cannot be written.
    """
    return _write(folder / "report.html", "report.html.j2", _report(read_run(folder)))


def write_comparison(folders: Sequence[Path], path: Path) -> Path:
    """Writes a page that puts runs side by side.

    Args:
        folders: those of the runs.
        path: the page.

    Returns:
        The page.

    Raises:
        FileNotFoundError: a folder is not that of a run, or nothing is logged yet.
        ValueError: a file of a run is damaged.
        OSError: the page cannot be written.
    """
    return _write(path, "comparison.html.j2", _comparison([read_run(folder) for folder in folders]))


@contextmanager
def reporting(folder: Path) -> Iterator[None]:
    """Writes report.html when the block is left, in whatever way, and logs where it is.

    Trouble with the page is a warning: it never spoils the run, nor hides its exception. Of several
    ranks, only the first writes.

    Args:
        folder: the run's folder.

    Example:
        >>> with reporting(folder), summary:
        ...     trainer.run(stream, max_epochs=1, epoch_length=50000)
    """
    try:
        yield
    finally:
        try:
            if is_first():
                _LOGGER.info("report: %s", write_report(folder))
        except Exception as error:
            _LOGGER.warning(
                "no report: %s; try again by python -m experiments.report %s", error, folder
            )


@dataclass(frozen=True)
class _Picture:
    """A figure on a page; ``uri`` is None where there is nothing to draw, which ``note`` says."""

    title: str
    uri: str | None
    text: str
    note: str


def _write(path: Path, template: str, values: dict[str, Any]) -> Path:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ignite_salak.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": tables.number, "duration": tables.duration}
    made = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    text = environment.get_template(template).render(
        made=made, version=ignite_salak.__version__, **values
    )
    # Names of files may hold bytes that are no UTF-8.
    write_whole(path, lambda file: file.write(text.encode("utf-8", errors="replace")))
    return path


def _report(run: Run) -> dict[str, Any]:
    options = tables.settings(run)
    return {
        "run": run,
        "numbers": _key_numbers(run),
        "state": tables.state_text(run),
        "verdicts": judge(run),
        "pixels_note": _pixels_note(run),
        "warnings": () if run.summary is None else run.summary.warnings,
        "charts": [_picture(chart) for chart in run_charts(run)],
        "classes": tables.class_rows(run),
        "weighted": run.option("loss", "use_class_weights") is not False,
        "confusion": _confusion(run),
        "panels": find_panels(run),
        "options": options,
        "changed": [row for rows in options.values() for row in rows if row.changed],
        "sources": {
            kind: names for kind, names in run.fact("sources").items() if isinstance(names, list)
        },
        "environment": tables.environment_rows(run),
        "others": tables.other_numbers(run),
    }


def _comparison(runs: Sequence[Run]) -> dict[str, Any]:
    runs = _distinct(runs)
    names = dict.fromkeys(name for run in runs for name in run.classes.names)
    rows = [{row.name: row for row in tables.class_rows(run)} for run in runs]
    return {
        "runs": runs,
        "notices": tables.notices(runs),
        "numbers": _transpose([_key_numbers(run) for run in runs]),
        "verdicts": [judge(run) for run in runs],
        "states": [tables.state_text(run) for run in runs],
        "differing": tables.differing_options(runs),
        "charts": [_picture(chart) for chart in comparison_charts(runs)],
        "classes": [(name, *_best_of([table.get(name) for table in rows])) for name in names],
        "confusions": [_confusion(run) for run in runs],
        "panels": [find_panels(run, last_only=True) for run in runs],
        "warnings": [() if run.summary is None else run.summary.warnings for run in runs],
    }


def _distinct(runs: Sequence[Run]) -> list[Run]:
    """Gives runs of one name those of their folders, too."""
    counts = Counter(run.name for run in runs)
    return [
        run if counts[run.name] == 1 else replace(run, name=str(run.folder.resolve()))
        for run in runs
    ]


def _best_of(
    rows: list[tables.ClassRow | None],
) -> tuple[list[tables.ClassRow | None], float | None]:
    """Returns rows of one class and their highest IoU, None where there is nothing to compare."""
    scores = [row.iou for row in rows if row is not None and row.iou is not None]
    scores = [score for score in scores if not math.isnan(score)]
    return rows, max(scores) if len(scores) > 1 else None


def _transpose(columns: list[list[tuple[str, str]]]) -> list[tuple[str, list[str]]]:
    return [(cells[0][0], [value for _, value in cells]) for cells in zip(*columns, strict=True)]


def _key_numbers(run: Run) -> list[tuple[str, str]]:
    scores, best = run.series("validation/mIoU"), run.best
    last = float(scores.values[-1]) if len(scores.values) else None
    st_px = run.series("st_px").until(best) if run.self_training else 0.0
    of = "" if run.total is None else f" of {run.total:,}"
    return [
        ("Best validation mIoU", tables.number(scores.at(best))),
        ("at iteration", "-" if best is None else f"{best:,}"),
        ("Last validation mIoU", tables.number(last)),
        ("Train/val gap at best", tables.number(run.series("gap").at(best))),
        ("ST_px at best", "-" if st_px is None else f"{st_px:,.0f}"),
        ("Iterations", f"{run.iteration:,}{of}"),
        ("Time per iteration", tables.duration(tables.step_time(run))),
        ("Training time", tables.duration(tables.training_time(run))),
    ]


def _pixels_note(run: Run) -> str:
    batch, side = run.option("schedule", "batch_size"), run.option("data", "input_size")
    if not run.self_training or (batch in (None, 8) and side in (None, 256)):
        return ""
    size = "as large as their files" if side is None else f"of {side} pixels"
    return (
        "The guide's bounds of ST_px are for 8 unlabelled patches of 256 pixels a batch; here it "
        f"is {batch} patches {size}."
    )


def _picture(chart: Chart) -> _Picture:
    if not chart.drawn:
        return _Picture(chart.title, None, "", chart.missing)
    return _Picture(chart.title, picture(draw(chart)), chart.text, chart.note)


def _confusion(run: Run) -> _Picture:
    judged = run.confusion()
    if judged is None:
        return _Picture("Confusion matrix", None, "", "no summary.json with an evaluation")
    which = "best" if judged.iteration == run.best else "last"
    title = f"Confusion matrix of the {which} evaluation (iteration {judged.iteration:,})"
    if run.classes.num_classes > _MOST_CLASSES:
        note = f"not drawn for more than {_MOST_CLASSES} classes; summary.json has the numbers"
        return _Picture(title, None, "", note)
    note = "" if which == "best" else "That of the best evaluation is not known."
    figure = confusion_figure(judged.confusion, run.classes.names)
    return _Picture(title, picture(figure), title, note)
