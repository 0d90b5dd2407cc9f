"""Option groups that experiment scripts share; their command lines are made of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch.optim import Optimizer

from ignite_salak.augment import RandomGeometry
from ignite_salak.classes import ClassMap
from ignite_salak.handlers import ClearMLMonitor, Monitor, TensorBoardMonitor, WandBMonitor
from ignite_salak.models.model_file import ModelSpec
from ignite_salak.steps.views import Views

__all__ = [
    "AugmentationOptions",
    "DataOptions",
    "LossOptions",
    "ModelOptions",
    "MonitorOptions",
    "RunOptions",
    "ScheduleOptions",
    "SelfTrainingOptions",
]


@dataclass
class DataOptions:
    """Data."""

    data_root: Path | None = None
    """Folder with <folder>/images and <folder>/masks."""
    class_mapping: Path | None = None
    """CSV of class names and colours; DATA_ROOT/class_mapping.csv if not given."""
    num_classes: int | None = None
    """Number of classes, background included; must agree with the class mapping."""
    labeled_files: Path | None = None
    """Text file of source images, or of single patches, whose masks may be used; all if not
    given."""
    val_files: Path | None = None
    """Text file of source images for validation, instead of --val-split."""
    val_split: float = 0.2
    """Share of the labelled source images held out for validation."""
    input_size: int | None = None
    """Longer side in pixels to which patches are resized when read."""
    mask_format: Literal["auto", "color", "index"] = "auto"
    """How RGB masks with three equal channels are read."""
    skip_bad_files: bool = False
    """Go on without files that cannot be read, and list them."""
    cache: Literal["none", "ram", "disk"] = "none"
    """Where decoded patches are kept, so that later epochs need not decode them again; on disk, in
    the folder IGNITE_SALAK_CACHE or the user's cache folder, later runs too."""

    def root(self) -> Path:
        """Returns the data root, which must be given and exist."""
        if self.data_root is None:
            raise ValueError("--data-root is missing (or use --demo)")
        if not self.data_root.is_dir():
            raise FileNotFoundError(f"--data-root {self.data_root} is not a folder")
        return self.data_root

    def load_classes(self) -> ClassMap:
        """Reads the class mapping and compares it with ``num_classes``."""
        path = self.class_mapping or self.root() / "class_mapping.csv"
        classes = ClassMap.from_csv(path)
        if self.num_classes not in (None, classes.num_classes):
            raise ValueError(
                f"--num-classes {self.num_classes}, but {path} lists {classes.num_classes}: "
                f"{', '.join(classes.names)}"
            )
        return classes


@dataclass
class ModelOptions:
    """Model."""

    backbone: str = "resnet50"
    """resnet18, resnet50, resnet101, mobilenet_v3_large, efficientnet_lite0 to 2 or timm/<name>."""
    output_stride: int = 16
    """Stride of the encoder's last features: 8 or 16."""
    num_heads: int = 3
    """Voting heads."""
    use_multi_head: bool = True
    """Use --num-heads heads; otherwise one."""
    decoder_channels: int = 256
    """Width of ASPP and decoder; smaller is faster."""
    aspp_rates: tuple[int, ...] = ()
    """Dilations of ASPP; 6 12 18 at stride 16 and twice that at 8 if not given."""
    pretrained: bool = True
    """Start from ImageNet weights."""
    encoder_weights: Path | None = None
    """File of encoder weights, instead of the download."""

    def spec(self, num_classes: int) -> ModelSpec:
        """Returns the architecture."""
        return ModelSpec(
            num_classes,
            self.backbone,
            self.num_heads if self.use_multi_head else 1,
            self.output_stride,
            self.decoder_channels,
            aspp_rates=self.aspp_rates,
        )


@dataclass
class LossOptions:
    """Losses."""

    use_combined_loss: bool = True
    """Cross-entropy + Dice + focal; otherwise cross-entropy alone."""
    ce_weight: float = 0.4
    """Weight of the cross-entropy."""
    dice_weight: float = 0.4
    """Weight of the Dice loss."""
    focal_weight: float = 0.2
    """Weight of the focal loss."""
    use_class_weights: bool = True
    """Weight cross-entropy and focal loss by class, on labelled patches only."""

    def weights(self) -> dict[str, float]:
        """Returns the weight of every part."""
        if not self.use_combined_loss:
            return {"ce": 1.0}
        return {"ce": self.ce_weight, "dice": self.dice_weight, "focal": self.focal_weight}


@dataclass
class SelfTrainingOptions:
    """Self-training."""

    confidence_threshold: float = 0.65
    """Threshold of classes for which nothing else is known."""
    use_classwise_threshold: bool = True
    """Use thresholds per class: of the class mapping, or the V3 guide's by class name."""
    classwise_thresholds: tuple[str, ...] = ()
    """Thresholds that override all others, as NAME=VALUE or INDEX=VALUE."""
    st_loss_weight: float = 1.0
    """Factor of the self-training loss; 0 switches self-training off."""
    st_start_iter: int = 500
    """First iteration with self-training."""

    def thresholds(self, classes: ClassMap) -> list[float]:
        """Returns the threshold of every class."""
        overrides = {}
        for entry in self.classwise_thresholds:
            name, equals, value = entry.rpartition("=")
            try:
                overrides[name] = float(value)
            except ValueError:
                equals = ""
            if not equals:
                raise ValueError(f"--classwise-thresholds {entry!r} is not NAME=VALUE")
        return classes.resolve_thresholds(
            self.confidence_threshold, classwise=self.use_classwise_threshold, overrides=overrides
        )


@dataclass
class AugmentationOptions:
    """Augmentation."""

    multi_scale: bool = True
    """One random view size per iteration; otherwise --scale-min."""
    scale_min: int | None = None
    """Smallest side of the views in pixels; 256, or --input-size, if not given."""
    scale_max: int | None = None
    """Largest side of the views in pixels; 1.5 times --scale-min if not given."""
    random_mirror: bool = True
    """Flip half of the patches left to right."""
    random_turns: bool = False
    """Turn every patch by 0, 90, 180 or 270 degrees."""
    random_scale: bool = True
    """Scale every patch by a random factor and crop it."""
    random_scale_range: tuple[float, float] = (0.75, 1.5)
    """Bounds of that factor."""

    def sizes(self, input_size: int | None) -> tuple[int, int]:
        """Returns the smallest and the largest side of the views."""
        smallest, largest = self.scale_min, self.scale_max
        if smallest is None:
            smallest = 256 if input_size is None else input_size
        if largest is None:
            largest = smallest * 3 // 2
        if not self.multi_scale:
            largest = smallest
        if smallest < 16 or smallest > largest:
            raise ValueError(
                f"--scale-min {smallest} and --scale-max {largest}: expected 16 <= min <= max"
            )
        return smallest, largest

    def scale_range(self) -> tuple[float, float]:
        """Returns the bounds of the random factor."""
        return self.random_scale_range if self.random_scale else (1.0, 1.0)

    def views(self, input_size: int | None, seed: int) -> Views:
        """Returns the random views of a run with this seed."""
        geometry = RandomGeometry(self.random_mirror, self.scale_range(), self.random_turns)
        return Views(geometry, self.sizes(input_size), seed)


@dataclass
class ScheduleOptions:
    """Training."""

    batch_size: int = 8
    """Labelled patches a batch, and as many unlabelled ones; of all processes together."""
    grad_accumulation: int = 1
    """Parts of a batch that are computed one after the other: less memory for the same batch."""
    num_steps: int = 50000
    """Iterations."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum 0.9, or AdamW."""
    learning_rate: float = 2.5e-4
    """Initial learning rate of the encoder."""
    decoder_lr_factor: float = 10.0
    """The decoder's learning rate is this many times the encoder's."""
    weight_decay: float = 5e-4
    """Weight decay."""
    warmup_iters: int = 1000
    """Iterations of linear warm-up before the cosine."""
    gradient_clip: float = 10.0
    """Largest norm of the gradients."""
    ema_decay: float = 0.9995
    """Decay of the averaged model, after its ramp."""

    def build_optimizer(self, groups: list[dict[str, Any]]) -> Optimizer:
        """Builds the optimizer of parameter groups that bring their learning rates."""
        on_gpu = all(parameter.is_cuda for group in groups for parameter in group["params"])
        fused = True if on_gpu else None  # False would choose the slowest way, not torch's own
        if self.optimizer == "adamw":
            return torch.optim.AdamW(groups, weight_decay=self.weight_decay, fused=fused)
        return torch.optim.SGD(groups, momentum=0.9, weight_decay=self.weight_decay, fused=fused)


@dataclass
class RunOptions:
    """Run."""

    checkpoint_dir: Path = Path("checkpoints_v3")
    """Folder for all files of the run."""
    restore_from: Path | None = None
    """Checkpoint to continue from."""
    overwrite: bool = False
    """Start anew in a folder that holds another run."""
    eval_every: int = 500
    """Iterations between evaluations."""
    save_pred_every: int = 5000
    """Iterations between checkpoints that are kept."""
    save_latest_every: int = 100
    """Iterations between saves of latest_checkpoint.pth."""
    log_every: int = 50
    """Iterations between logged numbers."""
    early_stop_patience: int | None = None
    """Stop after this many evaluations without a better mIoU."""
    seed: int = 0
    """Seed of everything random."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic of the network; auto is bf16 on CUDA where it can, else fp32."""
    compile: bool = False
    """Compile the network by torch.compile: a slow start, then faster."""
    num_workers: int = 4
    """Processes that read patches, at most one per core; 0 reads in the training process."""
    threads: int = 0
    """CPU threads of torch; results depend on it (0: torch's own choice)."""


@dataclass
class MonitorOptions:
    """Monitors."""

    tensorboard: bool = True
    """Write scalars and pictures for TensorBoard to CHECKPOINT_DIR/tensorboard."""
    clearml_project: str | None = None
    """ClearML project to report to."""
    clearml_run_name: str | None = None
    """Name of the ClearML task; that of CHECKPOINT_DIR if not given."""
    clearml_offline: bool = False
    """Keep the ClearML task on this machine, to be imported later."""
    wandb_project: str | None = None
    """Weights & Biases project to report to (needs the extra wandb)."""
    wandb_run_name: str | None = None
    """Name of the W&B run; that of CHECKPOINT_DIR if not given."""
    wandb_mode: Literal["online", "offline"] | None = None
    """Where W&B keeps the run: server or this machine; WANDB_MODE, or online, if not given."""
    panels: int = 4
    """Patches of either pool that are drawn at every evaluation, to CHECKPOINT_DIR/panels."""
    watch_patches: int = 256
    """Unlabelled patches, spread over their source images, whose classes are counted at every
    evaluation, to CHECKPOINT_DIR/source_classes.csv; a source image that becomes another is a
    warning. 0 for none; only where a recipe trains itself."""

    def build(self, folder: Path, options: dict[str, Any]) -> list[Monitor]:
        """Builds what is switched on.

        Args:
            folder: the run's folder, whose name is that of the run unless another is given.
            options: all options of the run, plain values.

        Raises:
            ModuleNotFoundError: a package is not installed.
            ValueError: a run name, a mode or offline is given, but no project.
        """
        for flag, value, project in (
            ("--clearml-run-name", self.clearml_run_name, self.clearml_project),
            ("--clearml-offline", self.clearml_offline or None, self.clearml_project),
            ("--wandb-run-name", self.wandb_run_name, self.wandb_project),
            ("--wandb-mode", self.wandb_mode, self.wandb_project),
        ):
            if value is not None and project is None:
                service = flag.split("-")[2]
                raise ValueError(f"{flag} does nothing without --{service}-project NAME")
        name = folder.resolve().name
        monitors: list[Monitor] = []
        if self.tensorboard:
            monitors.append(TensorBoardMonitor(folder / "tensorboard", options))
        if self.clearml_project is not None:
            run = self.clearml_run_name or name
            offline = self.clearml_offline
            monitors.append(ClearMLMonitor(self.clearml_project, run, options, offline=offline))
        if self.wandb_project is not None:
            run, mode = self.wandb_run_name or name, self.wandb_mode
            monitors.append(WandBMonitor(self.wandb_project, run, options, folder, mode=mode))
        return monitors
