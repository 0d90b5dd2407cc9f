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
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from ignite.metrics import Metric
from torch import Tensor, nn
from tqdm import tqdm

from experiments.config_file import to_dict
from experiments.console import load_checkpoint, parse, run_script
from experiments.machine import set_up, surroundings
from experiments.masks import look_at_masks
from experiments.patch_choice import PatchOptions, check_classes, choose_patches
from experiments.pseudo_label_judgement import (
    PseudoLabelOptions,
    judge_pseudo_labels,
    precision_curves,
)
from experiments.tables import (
    plain,
    score_table,
    source_table,
    text_table,
    write_confusion,
    write_qualities,
    write_sources,
)
from ignite_salak.alignment import align
from ignite_salak.data.datasets import PatchDataset
from ignite_salak.data.loaders import EvaluationBatches
from ignite_salak.data.patches import scan_patches
from ignite_salak.engines import create_evaluator
from ignite_salak.files import write_json
from ignite_salak.inference import AtInputSize, TestTimeAugmentation
from ignite_salak.metrics import (
    BoundaryBandIoU,
    ClassIoU,
    PseudoLabelCounts,
    PseudoLabelQuality,
    SourceIoU,
    jackknife_error,
    mean_iou_without,
)
from ignite_salak.plots import confusion_figure, save_png
from ignite_salak.steps.device import resolve_precision
from ignite_salak.voting import predict_once

_LOGGER = logging.getLogger("ignite_salak.evaluate")
_FILES = (
    *("metrics.json", "confusion.csv", "confusion_shares.csv", "confusion.png"),
    *("source_images.csv", "pseudo_labels.csv", "pseudo_labels.png"),
)
_WORST = 5  # source images that the terminal shows


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
    saved = load_checkpoint(options.checkpoint, device)
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
    check_classes(saved.classes, options.patches)
    index = scan_patches(options.patches.data_root)
    patches = choose_patches(index, options.patches, saved.facts, pseudo.pseudo_labels)
    reader, statistics = look_at_masks(
        index,
        patches,
        saved.classes,
        options.patches.mask_format,
        options.patches.skip_bad_files,
    )
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
    scores = SourceIoU(names, len(index.sources), device)
    band = BoundaryBandIoU(names, prediction.boundary_width, device)
    metrics: dict[str, Metric] = {"scores": scores, "band": band}
    shift, factors = None, pseudo.factors(saved)
    if factors is not None:
        shift = partial(align, factors=torch.tensor(factors, device=device))
    if pseudo.pseudo_labels:
        metrics["pseudo_labels"] = PseudoLabelQuality(names, device=device)
    evaluator = create_evaluator(
        model, metrics, device=device, precision=precision, predict=predict, shift=shift
    )
    output.mkdir(parents=True, exist_ok=True)
    for name in _FILES:
        (output / name).unlink(missing_ok=True)
    evaluator.run(tqdm(batches, desc="Evaluating", disable=None, dynamic_ncols=True))

    # Tables and files
    title = f"{options.checkpoint.name} on {len(patches):,} patches"
    print(f"\n{score_table(names, scores.result, band.result, scores.total)}\n")
    print(_summary(scores, band))
    present = np.unique(index.source_ids[patches])
    matrices = scores.total_by_source[present]
    confusions = dict(zip(map(index.source_name, present.tolist()), matrices, strict=True))
    error = jackknife_error(len(present), lambda one: mean_iou_without(matrices, one, names))
    if len(confusions) > 1:
        print(f"standard error of the mIoU over {len(confusions)} source images: {error:.4f}")
        print(f"\n{source_table(confusions, names, _WORST)}")
    write_confusion(output, names, scores.total)
    write_sources(output / "source_images.csv", names, confusions)
    save_png(confusion_figure(scores.total, names, title), output / "confusion.png")
    report = {
        "checkpoint": {"path": str(options.checkpoint), "facts": saved.facts},
        "patches": len(patches),
        "source_images": len(confusions),
        "bad_files": list(statistics.bad_files.values()),
        "scores": scores.result,
        "band": band.result,
        "mIoU_error": error,
        "confusions": {name: matrix.tolist() for name, matrix in confusions.items()},
        "options": to_dict(options),
        "environment": surroundings(device),
    }
    if pseudo.pseudo_labels:
        counts: PseudoLabelCounts = evaluator.state.metrics["pseudo_labels"]
        report["pseudo_labels"] = judge_pseudo_labels(counts, thresholds, factors, pseudo)
        write_qualities(output / "pseudo_labels.csv", counts)
        figure = precision_curves(
            counts, saved.classes, thresholds, pseudo, f"pseudo-labels of {title}"
        )
        save_png(figure, output / "pseudo_labels.png")
    write_json(output / "metrics.json", plain(report))
    print(f"\n{output} holds: {', '.join(n for n in _FILES if (output / n).exists())}")


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


if __name__ == "__main__":
    sys.exit(run_script(main, None))
