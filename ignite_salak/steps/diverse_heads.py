"""DiverseHead: many heads vote, one of them learns from the vote, half of them are perturbed.

Ma, Karakus, Rosin 2023, "DiverseNet: Decision Diversified Semi-supervised Semantic Segmentation
Networks for Remote Sensing Imagery" (https://arxiv.org/abs/2311.13716). What the page of the paper
leaves open is taken from the authors' program (github.com/WANLIMA-CARDIFF/DiverseNet, 2025):

- ten heads of 3 x 3 convolution, BatchNorm, ReLU and 1 x 1 convolution, cross-entropy, 15,000
  iterations of 5 labelled and 5 unlabelled patches;
- loss = sum of the labelled loss over all heads + w * loss of one head, drawn anew in every
  iteration, against the vote; w is 7.5 with dynamic freezing and 15 with dynamic dropout; there is
  no confidence threshold, and self-training begins with the first iteration;
- vote = argmax(5 * onehot(argmax of the summed logits) + sum of the heads' one-hot votes); the 5
  is a parameter there, but no gradient reaches it;
- dynamic freezing: from iteration 3,500 on, half of the heads keep their weights for an iteration;
  gradients still pass through them into the trunk;
- dynamic dropout: dropout of 0.5 before the last convolution of a head.

Deviations:

- the vote is taken in evaluation mode on the plain view, and image and labels are then warped
  together. The authors vote in training mode on the very tensor that is trained on;
- only unlabelled pixels get pseudo-labels; the authors' vote replaces labels for that one term;
- background and pixels without content never become pseudo-labels;
- heads are frozen whole, half of them, without replacement. The program draws five heads with
  replacement, again for every single parameter;
- with dynamic dropout half of the heads, drawn anew in every iteration, drop features at the rate
  of 0.5, the others at their own (``DeepLabV3Plus``: 0.10, 0.15, ...), which holds for all heads
  with dynamic freezing. In the program all heads drop at 0.5, those of freezing not at all.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from ignite.engine import Engine
from torch import Tensor, nn
from torch.optim import Optimizer

from ignite_salak.losses import CombinedLoss
from ignite_salak.randomness import torch_generator
from ignite_salak.ranks import unwrap
from ignite_salak.steps.pools import forward_pools
from ignite_salak.steps.self_training import SelfTrainingStep
from ignite_salak.steps.views import Views
from ignite_salak.voting import weighted_vote

__all__ = ["DiverseHeadsStep", "WeightedVoteModel", "draw_heads"]

_DROPOUT = 0.5


def draw_heads(count: int, seed: int, iteration: int) -> tuple[frozenset[int], int]:
    """Draws the heads of one iteration, the same on every rank.

    Args:
        count: number of heads.
        seed: seed of the run.
        iteration: from 1.

    Returns:
        Half of the heads (rounded down), which are perturbed, and the head that learns from the
        vote, which may be one of them.
    """
    generator = torch_generator(seed, iteration, "heads")
    order = torch.randperm(count, generator=generator).tolist()
    learner = int(torch.randint(count, (), generator=generator))
    return frozenset(order[: count // 2]), learner


class DiverseHeadsStep(SelfTrainingStep):
    """One optimisation step of DiverseHead; see the module for source and deviations.

    loss = N * mean of the labelled losses of the N heads + weight * loss of one random head against
    the vote.

    Args:
        model: returns logits [N, B, C, H, W] for RGB images [B, 3, H, W] in 0-1, and has its N
            heads in ``heads``; where there are several ranks, in ``DistributedDataParallel``.
        optimizer: of the model's parameters. A frozen head has no gradient when it steps, so
            that neither momentum nor weight decay move the head.
        loss: for labelled patches.
        self_training_loss: for pseudo-labels; without class weights.
        num_classes: C.
        mode: "freezing" freezes half of the heads in every iteration, "dropout" lets half of them
            drop features at the rate of 0.5.
        views: the random views; their seed is that of the draws.
        weight: factor of the loss against the vote; 0 switches it off.
        start_iteration: first iteration in which a head learns from the vote.
        perturb_from: first iteration in which heads are frozen, or drop more features.
        accumulation: parts into which a batch is cut, one forward and backward pass each.
        device: where the model is.
        precision: "fp32" or "bf16".

    The outputs are those of ``SelfTrainingStep``; "ce", "dice" and "focal" are means over the
    heads, "st" is the loss of the head that learns from the vote, before the weight.

    Raises:
        ValueError: there are fewer than two heads, an unknown mode, a head without dropout in mode
            "dropout", or what ``SelfTrainingStep`` refuses.
    """

    vote = staticmethod(weighted_vote)

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        loss: CombinedLoss,
        self_training_loss: CombinedLoss,
        *,
        num_classes: int,
        mode: Literal["freezing", "dropout"],
        views: Views,
        weight: float,
        start_iteration: int = 500,
        perturb_from: int = 1,
        accumulation: int = 1,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
    ) -> None:
        super().__init__(
            model,
            optimizer,
            loss,
            self_training_loss,
            thresholds=(0.0,) * num_classes,
            views=views,
            weight=weight,
            start_iteration=start_iteration,
            accumulation=accumulation,
            device=device,
            precision=precision,
        )
        self.mode = mode
        self.perturb_from = perturb_from
        self.heads: list[nn.Module] = list(unwrap(model).get_submodule("heads").children())
        self.perturbed: frozenset[int] = frozenset()
        self.learner = 0
        if len(self.heads) < 2:
            raise ValueError(
                f"DiverseHead with {len(self.heads)} head has nobody to vote with; use "
                "--use-multi-head --num-heads 10"
            )
        if mode == "freezing":
            self._make_freezable()
        elif mode == "dropout":
            self._dropouts = [_dropouts(head) for head in self.heads]
        else:
            raise ValueError(f"--mode {mode!r} is neither 'freezing' nor 'dropout'")

    def __call__(self, engine: Engine, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Trains on one batch of ``data.loaders.TrainingStream``."""
        iteration = engine.state.iteration
        drawn, self.learner = draw_heads(len(self.heads), self.views.seed, iteration)
        self.perturbed = drawn if iteration >= self.perturb_from else frozenset()
        if self.mode == "dropout":
            self._set_dropout()
        return super().__call__(engine, batch)

    def _losses(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """One forward pass over images [B, P, 3, S, S] of P pools and targets [B, P, S, S]."""
        logits = forward_pools(self.model, images, self.device, self.precision)
        parts = self.loss(logits[:, :, 0], targets[:, 0])
        loss = len(logits) * parts.pop("total")
        if targets.shape[1] == 1:
            return {"loss": loss, **parts, "st": torch.zeros_like(loss)}
        learner = logits[self.learner : self.learner + 1, :, 1]
        st = self.self_training_loss(learner, targets[:, 1])["total"]
        return {"loss": loss + self.weight * st, **parts, "st": st}

    def _make_freezable(self) -> None:
        """Takes the gradients of a frozen head's own weights out, those that pass it stay."""
        for index, head in enumerate(self.heads):
            for parameter in head.parameters():
                parameter.register_hook(partial(self._without_frozen, index))
        self.optimizer.register_step_pre_hook(self._leave_frozen_alone)

    def _without_frozen(self, index: int, gradient: Tensor) -> Tensor:
        # No gradient at all would let DistributedDataParallel wait for it, so it is zero at first:
        # the norm that is clipped is then that of the weights that move.
        return torch.zeros_like(gradient) if index in self.perturbed else gradient

    def _leave_frozen_alone(self, *_: Any) -> None:
        for index in self.perturbed:
            for parameter in self.heads[index].parameters():
                parameter.grad = None

    def _set_dropout(self) -> None:
        for index, dropouts in enumerate(self._dropouts):
            for dropout, own_rate in dropouts:
                dropout.p = _DROPOUT if index in self.perturbed else own_rate


class WeightedVoteModel(nn.Module):
    """Shows the weighted vote of a model's heads as if it were one head, such as for ``Panels``.

    Args:
        model: returns logits [N, B, C, H, W]; it is not copied.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Returns the logarithms of the shares, float32 [1, B, C, H, W]; -inf for no vote."""
        return weighted_vote(self.model(images)).log()[None]


def _dropouts(head: nn.Module) -> list[tuple[nn.Dropout, float]]:
    """The dropout layers of a head, with their own rates."""
    found = [(module, module.p) for module in head.modules() if isinstance(module, nn.Dropout)]
    if not found:
        raise ValueError("a head without dropout has no features to drop; use --mode freezing")
    return found
