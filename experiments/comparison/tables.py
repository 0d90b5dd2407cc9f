"""A comparison in tables: a Markdown page, and CSV."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from experiments.comparison.cells import Result, number
from experiments.comparison.markdown_table import decimal, markdown_table, percent, with_error
from experiments.comparison.statistics import compare, spread
from experiments.comparison.study import Cell, Study

__all__ = ["cell_rows", "markdown", "summary_rows"]

_TITLES = ("recipe", "seeds", "mIoU last", "mIoU best")
_PLAIN_TITLES = ("ST_px", "pseudo-labels right", "kept", "mIoU unlabelled", "minutes")


def markdown(study: Study, cells: Sequence[Cell], results: Sequence[Result], command: str) -> str:
    """Returns the page of a comparison.

    Args:
        study: what is compared.
        cells: all of its cells.
        results: those of the finished ones.
        command: how the page was made.
    """
    finished = {(result["recipe"], result["list"], result["seed"]) for result in results}
    missing = [c.name for c in cells if (c.recipe.name, c.listing, c.seed) not in finished]
    parts = ["# Comparison", *([study.about] if study.about else [])]
    parts.append(f"{len(cells) - len(missing)} of {len(cells)} cells are finished.")
    if missing:
        parts.append(f"Not finished: {', '.join(missing)}.")
    for listing in study.compared_lists():
        parts += [f"## {listing}", _score_table(study, listing, results)]
        parts += [f"### Gain over {study.baseline_name}", _gain_table(study, listing, results)]
    return "\n\n".join([*parts, "## How", _reading(study), _provenance(results, command)]) + "\n"


def summary_rows(study: Study, results: Sequence[Result]) -> list[list]:
    """Returns a row per list and recipe, with a head, for CSV: plain numbers."""
    names = _class_names(results)
    head = ["list", "recipe", "seeds"]
    head += [f"{which} {kind}" for which in ("last", "best") for kind in ("mean", "std")]
    head += [*(f"IoU/{name}" for name in names), "st_px", "precision", "kept_share"]
    head += ["unlabeled_mIoU", "minutes", "gain", "gain_error", "gain_photo_error"]
    head += ["closed_share", "closed_share_error"]
    rows: list[list] = [head]
    for listing in study.compared_lists():
        for label, recipe, own_list in _lines(study, listing):
            own = _cells_of(results, recipe, own_list)
            last, best = (
                spread(number(result, which, "mIoU") for result in own)
                for which in ("last", "best")
            )
            base, upper = study.base(listing), study.upper_bound
            found = compare(results, (recipe, own_list), base, upper)
            means = [spread(map(value, own)).mean for value in _columns(names)]
            row = [listing, label, last.n, last.mean, last.std, best.mean, best.std, *means]
            row += [found.gain.mean, found.gain.error, found.gain.photo_error]
            rows.append([*row, found.closed, found.closed_error])
    return rows


def cell_rows(results: Sequence[Result]) -> list[list]:
    """Returns a row per cell, with a head, for CSV."""
    names = _class_names(results)
    head = ["recipe", "list", "seed", "last", "best", "best_iteration"]
    head += [*(f"IoU/{name}" for name in names), "st_px", "precision", "kept_share"]
    rows: list[list] = [[*head, "unlabeled_mIoU", "minutes"]]
    for result in results:
        best = result["best"] or {}
        row = [result["recipe"], result["list"], result["seed"]]
        row += [number(result, "last", "mIoU"), number(best, "mIoU"), best.get("iteration", "")]
        rows.append([*row, *(value(result) for value in _columns(names))])
    return rows


def _score_table(study: Study, listing: str, results: Sequence[Result]) -> str:
    names = _class_names(results)
    rows = []
    for label, recipe, own_list in _lines(study, listing):
        own = _cells_of(results, recipe, own_list)
        scores = [
            spread(number(result, which, "mIoU") for result in own).text()
            for which in ("last", "best")
        ]
        means = [spread(map(value, own)).mean for value in _columns(names)]
        *ious, pixels, precision, kept, unlabeled, minutes = means
        rows.append(
            [
                label,
                str(len(own)),
                *scores,
                *(decimal(iou) for iou in ious),
                "-" if math.isnan(pixels) else f"{pixels:,.0f}",
                *map(percent, (precision, kept)),
                decimal(unlabeled),
                decimal(minutes, 1),
            ]
        )
    return markdown_table((*_TITLES, *names, *_PLAIN_TITLES), rows)


def _gain_table(study: Study, listing: str, results: Sequence[Result]) -> str:
    head = ["recipe", "gain", "error of the seeds", "error of the photos", "by seed", "clear"]
    head.append("share of the gap closed")
    rows = []
    for label, recipe, own_list in _lines(study, listing):
        base, upper = study.base(listing), study.upper_bound
        if (recipe, own_list) == base:
            continue
        found = compare(results, (recipe, own_list), base, upper)
        gain = found.gain
        differences = ", ".join(f"{seed}: {value:+.3f}" for seed, value in gain.by_seed.items())
        rows.append(
            [
                label,
                decimal(gain.mean, sign="+"),
                decimal(gain.error),
                decimal(gain.photo_error),
                differences or "-",
                gain.verdict(),
                with_error(percent(found.closed), percent(found.closed_error)),
            ]
        )
    return markdown_table(head, rows)


def _lines(study: Study, listing: str) -> list[tuple[str, str, str]]:
    """The lines of a list's tables: label, recipe and the list on which it was trained."""
    own = [(name, name, listing) for name, recipe in study.recipes.items()]
    lines = [line for line in own if listing in study.recipes[line[1]].lists]
    if study.upper_bound is not None:
        recipe, upper = study.upper_bound
        lines.append((f"upper bound: {recipe}, {upper}", recipe, upper))
    return lines


def _cells_of(results: Iterable[Result], recipe: str, listing: str) -> list[Result]:
    return [result for result in results if (result["recipe"], result["list"]) == (recipe, listing)]


def _class_names(results: Sequence[Result]) -> list[str]:
    """The classes without the background, which is the first."""
    return results[0]["classes"][1:] if results else []


def _columns(names: Sequence[str]) -> list[Callable[[Result], float]]:
    """What a table says of a cell behind its scores, in this order."""
    ious = [lambda result, name=name: number(result, "last", "IoU", name) for name in names]
    return [
        *ious,
        lambda result: number(result, "st_px"),
        lambda result: number(result, "pseudo_labels", "precision"),
        lambda result: number(result, "pseudo_labels", "kept_share"),
        lambda result: number(result, "unlabeled", "mIoU"),
        lambda result: number(result, "minutes"),
    ]


def _reading(study: Study) -> str:
    upper = ""
    if study.upper_bound is not None:
        upper = (
            "Share of the gap closed: (mean of the recipe - mean of the baseline) / (mean of the "
            "upper bound - mean of the baseline), over the seeds that all three have; ± is its "
            "error of the photos. "
        )
    return (
        "mIoU is the mean IoU of the classes without the background, of the averaged model on the "
        'validation photos: mean ± sample standard deviation over the seeds. "Best" is chosen on '
        'these same photos, so quote "last". The classes\' columns are the mean IoU at the last '
        "iteration, ST_px the kept pixels of a batch in the last logged iterations. Pseudo-labels "
        "right, and kept, are the share of kept pixels that are right and the share of predicted "
        "pixels that are kept, of the final averaged model at the recipe's own last thresholds, on "
        "the unlabelled photos with masks; a recipe without thresholds is judged at the default "
        "ones, and V4's votes are aligned as in training. Gain: "
        "of the last mIoU, paired by seed; its error of the seeds is the sample standard "
        "deviation of the differences over the root of their number, that of the photos a "
        "jackknife over the validation photos, of the seeds whose cells keep a confusion matrix "
        "per photo; clear: more than two of each error that is known, and positive for every seed. "
        f"{upper}Minutes: training with its evaluations."
    )


def _provenance(results: Sequence[Result], command: str) -> str:
    facts = [f"Made by `{command}`."]
    if results:
        budget = results[0]["budget"]
        shown = ("num-steps", "batch-size", "input-size", "eval-every")
        equal = ", ".join(f"{name} {budget.get(name)}" for name in shown)
        rest = {name: value for name, value in budget.items() if name not in shown}
        views = ", ".join(f"{name} {v}" for name, v in rest.items() if v is not None)
        facts.append(f"Every cell: {equal}; {views}.")
        facts.append(f"Cells from {_ends([result['date'] for result in results])}.")
        for title, values in (
            ("Commit", [str(result["commit"]) for result in results]),
            ("Threads a cell", [str(result["identity"]["threads"]) for result in results]),
            ("Surroundings", [_machine(result["environment"]) for result in results]),
        ):
            facts.append(f"{title}: {'; '.join(dict.fromkeys(values))}.")
    return "\n".join(f"- {fact}" for fact in facts)


def _ends(dates: Sequence[str]) -> str:
    first, last = min(dates)[:10], max(dates)[:10]
    return first if first == last else f"{first} to {last}"


def _machine(environment: Mapping) -> str:
    packages = ", ".join(f"{k} {v}" for k, v in environment.get("packages", {}).items())
    device = environment.get("gpu") or f"{environment.get('cpus')} CPUs"
    named = [environment[name] for name in ("processor", "cpu_capability") if environment.get(name)]
    machine = ", ".join([device, *named, str(environment.get("platform"))])
    return f"{machine}, Python {environment.get('python')}, {packages}"
