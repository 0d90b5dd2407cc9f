"""Judges a trained model on patches with masks, and how right its pseudo-labels would be.

    python -m experiments.evaluate --checkpoint best_model_ema.pth --data-root DATA
    python -m experiments.evaluate --checkpoint best_model_ema.pth --data-root DATA --pseudo-labels

The class list and the architecture come from the checkpoint; ``main`` reads from top to bottom.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from ignite.metrics import Metric
from matplotlib.figure import Figure
from torch import Tensor, nn
from tqdm import tqdm

from experiments.console import parse, run_script, set_up, surroundings
from experiments.options import SelfTrainingOptions, to_dict
from experiments.tables import (
    grid_table,
    plain,
    quality_table,
    score_table,
    text_table,
    write_confusion,
    write_qualities,
)
from ignite_salak.classes import ClassMap
from ignite_salak.data.balance import inspect_masks
from ignite_salak.data.datasets import PatchDataset
from ignite_salak.data.decoding import MaskReader
from ignite_salak.data.loaders import EvaluationBatches
from ignite_salak.data.patches import PatchIndex, scan_patches
from ignite_salak.data.splits import masked_patches
from ignite_salak.engines import create_evaluator
from ignite_salak.files import write_json
from ignite_salak.inference import AtInputSize, TestTimeAugmentation
from ignite_salak.metrics import BoundaryBandIoU, ClassIoU, PseudoLabelCounts, PseudoLabelQuality
from ignite_salak.models.model_file import SavedModel, load_model
from ignite_salak.plots import confusion_figure, save_png, threshold_figure
from ignite_salak.steps.device import resolve_precision
from ignite_salak.voting import predict_once

_LOGGER = logging.getLogger("ignite_salak.evaluate")
_FORMAT_SAMPLES = 256
_FILES = (
    *("metrics.json", "confusion.csv", "confusion_shares.csv", "confusion.png"),
    *("pseudo_labels.csv", "pseudo_labels.png"),
)


@dataclass
class PatchOptions:
    """Patches."""

    data_root: Path
    """Folder with <folder>/images and <folder>/masks."""
    class_mapping: Path | None = None
    """CSV that must agree with the checkpoint's classes; DATA_ROOT/class_mapping.csv, if there."""
    val_files: Path | None = None
    """Text file of the source images to judge on."""
    labeled_files: Path | None = None
    """The same under the name of the other list; give one of the two."""
    pool: Literal["validation", "labeled", "unlabeled", "all"] | None = None
    """Source images of that training pool, where no list is given; unlabeled: neither trained with
    masks nor validated on. Default: validation, or unlabeled with --pseudo-labels."""
    mask_format: Literal["auto", "color", "index"] = "auto"
    """How RGB masks with three equal channels are read."""
    skip_bad_files: bool = False
    """Go on without files that cannot be read, and list them."""

    def listing(self) -> Path | None:
        """Returns the list of source images, or None."""
        if self.val_files is not None and self.labeled_files is not None:
            raise ValueError("--val-files and --labeled-files are both given: give one list")
        listing = self.val_files or self.labeled_files
        if listing is not None and self.pool is not None:
            raise ValueError(f"--pool {self.pool} and the list {listing}: give one of the two")
        return listing


@dataclass
class PredictionOptions:
    """Prediction."""

    input_size: int | None = None
    """Read patches, masks too, with their longer side resized to this, as training does when it
    evaluates. If not given, masks keep their size and only the network sees resized images."""
    tta: bool = False
    """Average over the eight flips and quarter turns."""
    tta_scales: tuple[float, ...] = (1.0,)
    """Scales that --tta averages over, such as 0.75 1.0 1.25."""
    boundary_width: int = 3
    """Pixels on either side of a border that the scores of the band count."""

    def build(self, trained_size: int | None) -> Callable[[nn.Module, Tensor], Tensor]:
        """Returns what makes probabilities of images."""
        if self.tta_scales != (1.0,) and not self.tta:
            raise ValueError(f"--tta-scales {' '.join(map(str, self.tta_scales))} needs --tta")
        augmented = TestTimeAugmentation(self.tta_scales)
        predict = augmented if self.tta else predict_once
        if self.input_size is None and trained_size is not None:
            return AtInputSize(trained_size, predict)
        return predict


@dataclass
class PseudoLabelOptions:
    """Pseudo-labels."""

    pseudo_labels: bool = False
    """Judge how right pseudo-labels would be, and suggest thresholds."""
    confidence_threshold: float | None = None
    """Threshold of all classes, instead of those that the checkpoint was trained with."""
    classwise_thresholds: tuple[str, ...] = ()
    """Thresholds that override all others, as NAME=VALUE or INDEX=VALUE."""
    wanted_precision: float = 0.9
    """Share of the kept pixels that should be right, for the suggested thresholds."""
    min_pixels: int = 1000
    """Thresholds that keep fewer pixels of a class prove nothing and are not suggested."""

    def thresholds(self, saved: SavedModel) -> list[float]:
        """Returns the threshold of every class."""
        if not 0.0 <= self.wanted_precision <= 1.0:
            raise ValueError(f"--wanted-precision {self.wanted_precision} is not between 0 and 1")
        if self.confidence_threshold is not None:
            options = SelfTrainingOptions(
                self.confidence_threshold, False, self.classwise_thresholds
            )
        else:
            trained = (f"{n}={v}" for n, v in saved.facts.get("thresholds", {}).items())
            options = SelfTrainingOptions(
                classwise_thresholds=(*trained, *self.classwise_thresholds)
            )
        return options.thresholds(saved.classes)


@dataclass
class MachineOptions:
    """Machine."""

    batch_size: int = 8
    """Patches a batch; smaller ones are padded to the largest of their batch."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic of the network; auto is bf16 on CUDA where it can, else fp32."""
    num_workers: int = 4
    """Processes that read patches, at most one per core; 0 reads in the same process."""
    threads: int = 0
    """CPU threads of torch (0: torch's own choice)."""


@dataclass
class Options:
    """Judges a trained model on patches with masks.

    --debug shows the traceback of an error.
    """

    checkpoint: Path
    """Model file of a run, such as best_model_ema.pth."""
    patches: PatchOptions
    prediction: PredictionOptions = field(default_factory=PredictionOptions)
    pseudo: PseudoLabelOptions = field(default_factory=PseudoLabelOptions)
    machine: MachineOptions = field(default_factory=MachineOptions)
    output: Path | None = None
    """Folder for the results; "evaluation" beside the checkpoint if not given."""


def main(arguments: Sequence[str]) -> None:
    """Judges, from options to files."""
    options = parse(Options, arguments)
    prediction, pseudo, machine = options.prediction, options.pseudo, options.machine
    output = options.output or options.checkpoint.parent / "evaluation"
    if machine.batch_size < 1:
        raise ValueError(f"--batch-size {machine.batch_size} is not at least 1")
    device = set_up(machine)
    precision = resolve_precision(machine.precision, device)

    # Model
    saved = _load(options.checkpoint, device)
    model = saved.model.to(memory_format=torch.channels_last)
    names = saved.classes.names
    thresholds = pseudo.thresholds(saved)
    trained_size = saved.facts.get("input_size")
    predict = prediction.build(trained_size)
    if isinstance(predict, AtInputSize):
        _LOGGER.info(
            "trained with --input-size %s: the network sees patches at that size, its maps are "
            "enlarged to that of the masks (--input-size %s judges small, as training did)",
            trained_size,
            trained_size,
        )

    # Patches
    _check_classes(saved.classes, options.patches)
    index = scan_patches(options.patches.data_root)
    patches = _choose_patches(index, options.patches, saved.facts, pseudo.pseudo_labels)
    samples = [index.mask_path(patch) for patch in patches[:: len(patches) // _FORMAT_SAMPLES + 1]]
    reader = MaskReader.resolve(saved.classes, options.patches.mask_format, samples)
    statistics = inspect_masks(
        index, patches, reader, skip_bad_files=options.patches.skip_bad_files
    )
    for reason in statistics.bad_files.values():
        _LOGGER.warning("skipped a bad file: %s", reason)
    patches = np.setdiff1d(patches, list(statistics.bad_files))
    if not len(patches):
        raise ValueError("no patch is left to judge on")
    batches = EvaluationBatches(
        PatchDataset(index, patches, reader, input_size=prediction.input_size),
        batch_size=machine.batch_size,
        num_workers=machine.num_workers,
        pin_memory=device.type == "cuda",
    )

    # Metrics, engine, run
    scores = ClassIoU(names, device)
    band = BoundaryBandIoU(names, prediction.boundary_width, device)
    metrics: dict[str, Metric] = {"scores": scores, "band": band}
    if pseudo.pseudo_labels:
        metrics["pseudo_labels"] = PseudoLabelQuality(names, device=device)
    evaluator = create_evaluator(
        model, metrics, device=device, precision=precision, predict=predict
    )
    output.mkdir(parents=True, exist_ok=True)
    for name in _FILES:
        (output / name).unlink(missing_ok=True)
    evaluator.run(tqdm(batches, desc="Evaluating", disable=None, dynamic_ncols=True))

    # Tables and files
    title = f"{options.checkpoint.name} on {len(patches):,} patches"
    print(f"\n{score_table(names, scores.result, band.result, scores.total)}\n")
    print(_summary(scores, band))
    write_confusion(output, names, scores.total)
    save_png(confusion_figure(scores.total, names, title), output / "confusion.png")
    report = {
        "checkpoint": {"path": str(options.checkpoint), "facts": saved.facts},
        "patches": len(patches),
        "source_images": len(np.unique(index.source_ids[patches])),
        "bad_files": list(statistics.bad_files.values()),
        "scores": scores.result,
        "band": band.result,
        "options": to_dict(options),
        "environment": surroundings(device),
    }
    if pseudo.pseudo_labels:
        counts: PseudoLabelCounts = evaluator.state.metrics["pseudo_labels"]
        report["pseudo_labels"] = _judge_pseudo_labels(counts, thresholds, pseudo)
        write_qualities(output / "pseudo_labels.csv", counts)
        figure = _curves(counts, saved.classes, thresholds, pseudo, f"pseudo-labels of {title}")
        save_png(figure, output / "pseudo_labels.png")
    write_json(output / "metrics.json", plain(report))
    print(f"\n{output} holds: {', '.join(n for n in _FILES if (output / n).exists())}")


def _load(path: Path, device: torch.device) -> SavedModel:
    try:
        return load_model(path, device)
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(
            f"--checkpoint {error}; expected a run's best_model_ema.pth or final_model.pth"
        ) from error


def _check_classes(classes: ClassMap, options: PatchOptions) -> None:
    path = options.class_mapping or options.data_root / "class_mapping.csv"
    if options.class_mapping is None and not path.is_file():
        return
    listed = ClassMap.from_csv(path)
    ours, theirs = (list(zip(c.names, c.colors, strict=True)) for c in (classes, listed))
    for index, (trained, given) in enumerate(zip(ours, theirs, strict=False)):
        if trained != given:
            raise ValueError(
                f"class {index} is {_shown(*trained)} in the checkpoint, but {_shown(*given)} in "
                f"{path}: judge on data with the classes of the training"
            )
    if len(ours) != len(theirs):
        raise ValueError(
            f"the checkpoint has {len(ours)} classes, but {path} lists {len(theirs)}: judge on "
            "data with the classes of the training"
        )


def _shown(name: str, color: Sequence[int]) -> str:
    return f"{name!r} ({' '.join(map(str, color))})"


def _choose_patches(
    index: PatchIndex, options: PatchOptions, facts: dict[str, Any], pseudo_labels: bool
) -> np.ndarray:
    """Chooses the patches with masks to judge on, and says which."""
    listing = options.listing()
    pool = options.pool or ("unlabeled" if pseudo_labels else "validation")
    if listing is not None:
        sources = np.unique(index.source_ids[masked_patches(index, listing)])
        label = f"source images of {listing}"
    else:
        sources = _pool_sources(index, pool, facts)
        label = f"source images of the pool '{pool}'"
    in_pool = np.isin(index.source_ids, sources)
    patches = np.flatnonzero(in_pool & index.has_mask)
    if not len(patches):
        raise FileNotFoundError(
            f"none of the {in_pool.sum():,} patches of the {label} under {index.root} has a mask, "
            "so they cannot be judged; expected <folder>/masks/<stem>.png"
        )
    sources = np.unique(index.source_ids[patches])
    _LOGGER.info("%s patches of %s %s", f"{len(patches):,}", f"{len(sources):,}", label)
    if in_pool.sum() > len(patches):
        count = f"{in_pool.sum() - len(patches):,}"
        _LOGGER.warning("%s further patches have no mask and cannot be judged", count)
    trained_on = set(facts.get("sources", {}).get("labelled", ()))
    seen = sum(index.source_name(source) in trained_on for source in sources.tolist())
    if seen:
        _LOGGER.warning("%d of %d source images were trained on with masks", seen, len(sources))
    return patches


def _pool_sources(index: PatchIndex, pool: str, facts: dict[str, Any]) -> np.ndarray:
    every = np.arange(len(index.sources))
    if pool == "all":
        return every
    if "sources" not in facts:
        raise ValueError(
            "the checkpoint does not remember its source images: name those to judge on by "
            "--val-files, or take all by --pool all"
        )
    remembered = {kind: set(facts["sources"][kind]) for kind in ("labelled", "validation")}
    names = [index.source_name(source) for source in every.tolist()]
    if pool == "unlabeled":
        return every[[name not in set().union(*remembered.values()) for name in names]]
    wanted = remembered["labelled" if pool == "labeled" else "validation"]
    found = every[[name in wanted for name in names]]
    if not len(found):
        raise ValueError(
            f"none of the {len(wanted)} {pool} source images of the training (such as "
            f"{min(wanted, default='none')}) is under {index.root}: name those to judge on by "
            "--val-files, or take all by --pool all"
        )
    if len(found) < len(wanted):
        missing = len(wanted) - len(found)
        _LOGGER.warning("%d of %d %s source images are missing", missing, len(wanted), pool)
    return found


def _summary(scores: ClassIoU, band: BoundaryBandIoU) -> str:
    share = 100 * int(band.total.sum()) / max(1, int(scores.total.sum()))
    rows = [
        [label, *(f"{r[key]:.4f}" for key in ("mIoU", "mIoU_with_background", "accuracy"))]
        for label, r in (
            ("all pixels", scores.result),
            (f"band of {band.width} px along borders ({share:.1f} % of the pixels)", band.result),
        )
    ]
    return text_table(["", "mIoU", "mIoU with background", "accuracy"], rows)


def _judge_pseudo_labels(
    counts: PseudoLabelCounts, thresholds: Sequence[float], options: PseudoLabelOptions
) -> dict[str, Any]:
    """Prints what thresholds do and which would do better; returns it for metrics.json."""
    wanted, least = options.wanted_precision, options.min_pixels
    judged = counts.judge(thresholds)
    print(
        "\nPseudo-labels at the thresholds in force (background is never kept; 'of truth': of the"
    )
    print(f"true pixels that are not background)\n\n{quality_table(judged)}")
    print("\nOne threshold for all: precision / kept share of the predicted pixels, in percent\n")
    print(grid_table(counts))
    suggested, notes = _suggest(counts, thresholds, wanted, least)
    print(f"\nLowest thresholds for a precision of {wanted:g}, from {least:,} kept pixels on\n")
    print("\n".join([quality_table(counts.judge(suggested)), *notes]))
    names = [counts.names[index] for index in counts.foreground]
    proposal = {name: suggested[counts.names.index(name)] for name in names}
    flags = " ".join(f'"{name}={value:g}"' for name, value in proposal.items())
    print(f"\nFor train_v3:\n  --classwise-thresholds {flags}")
    fields = (
        *("name", "threshold", "kept", "precision", "kept_share", "recall"),
        *("share_of_kept", "share_of_truth"),
    )
    return {
        "judged": [{name: getattr(quality, name) for name in fields} for quality in judged],
        "wanted_precision": wanted,
        "suggested_thresholds": proposal,
        "notes": notes,
    }


def _suggest(
    counts: PseudoLabelCounts, thresholds: Sequence[float], wanted: float, least: int
) -> tuple[list[float], list[str]]:
    """Returns one threshold per class, and what to know of those that do not reach the wanted."""
    suggested, notes = list(thresholds), []
    for index in counts.foreground:
        found = counts.threshold_for_precision(index, wanted, min_pixels=least)
        best = counts.best_threshold(index, min_pixels=least)
        name = counts.names[index]
        if found is not None:
            suggested[index] = found
        elif best is None:
            notes.append(f"{name}: fewer than {least:,} pixels are predicted; keeps its threshold")
        else:
            suggested[index] = 1.0
            precision = counts.judge_all(best)[counts.foreground.index(index)].precision
            notes.append(
                f"{name}: not reached, at best {precision:.4f} from {best:g} on; 1 keeps next to "
                "nothing"
            )
    return suggested, notes


def _curves(
    counts: PseudoLabelCounts,
    classes: ClassMap,
    thresholds: Sequence[float],
    options: PseudoLabelOptions,
    title: str,
) -> Figure:
    # The confidence of the most probable of C classes is at least 1 / C.
    steps = np.arange(counts.bins // classes.num_classes, counts.bins + 1) / counts.bins
    judged = [counts.judge_all(step)[:-1] for step in steps]
    kept = np.array([[quality.kept for quality in each] for each in judged]).T
    precision = np.array([[quality.precision for quality in each] for each in judged]).T
    return threshold_figure(
        steps,
        np.where(kept >= options.min_pixels, precision, np.nan),
        np.array([[quality.kept_share for quality in each] for each in judged]).T,
        [classes.names[index] for index in counts.foreground],
        [classes.colors[index] for index in counts.foreground],
        chosen=[thresholds[index] for index in counts.foreground],
        wanted=options.wanted_precision,
        title=title,
    )


if __name__ == "__main__":
    sys.exit(run_script(main, None))
