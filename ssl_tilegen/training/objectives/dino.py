"""Self-distillation: a student predicts from a crop the output of its moving average, the teacher, for the whole tile.

DINO (Caron et al. 2021, arXiv 2104.14294) on whole views; for vision transformers also iBOT (Zhou et al. 2022, arXiv
2111.07832): the student does not see some patches of a global view and must predict the teacher's output for them.
Against collapse, as in DINOv2 (Oquab et al. 2024, arXiv 2304.07193): Sinkhorn-Knopp balances the teacher's
distributions over the batch, and vectors are kept apart (KoLeo).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssl_tilegen.config.train import EncoderSettings
from ssl_tilegen.training.data.batches import Batch
from ssl_tilegen.training.distributed import gathered, share_of_this_process
from ssl_tilegen.training.objectives.embedder import Embedder

_STUDENT_TEMPERATURE, _TEACHER_TEMPERATURE = 0.1, 0.04
_BALANCING_ROUNDS = 3
_KOLEO_WEIGHT = 0.1
_BOTTLENECK = 128


class SelfDistilled(Embedder):
    """Student (``net`` and heads) and teacher. ``patches``: of a global view, 0 if no ViT."""

    def __init__(self, net: nn.Module, settings: EncoderSettings) -> None:
        super().__init__(net, settings.features)
        grid: Any = getattr(getattr(net, "patch_embed", None), "grid_size", None)
        is_vit = grid is not None and hasattr(net, "num_prefix_tokens") and settings.masked > 0
        self.patches = int(np.prod(grid)) if is_vit else 0
        self.decay = settings.teacher_decay
        self.head = _DinoHead(settings.features, settings)
        if self.patches:
            width = int(net.embed_dim)  # type: ignore[arg-type]
            self.patch_head = _DinoHead(width, settings)
            self.mask_token = nn.Parameter(torch.zeros(width))
        self.teacher = self._copy()

    def _student(self) -> list[nn.Module]:
        return [self.net, self.head, *([self.patch_head] if self.patches else [])]

    def _copy(self) -> Any:
        return nn.ModuleList(copy.deepcopy(self._student())).requires_grad_(False)

    @torch.no_grad()
    def start_teacher(self) -> None:
        """Copy the student to the teacher."""
        self.teacher.load_state_dict(nn.ModuleList(self._student()).state_dict())

    @torch.no_grad()
    def _move_teacher(self) -> None:
        mine: list[Tensor] = list(self.teacher.parameters())
        theirs: list[Tensor] = list(nn.ModuleList(self._student()).parameters())
        torch._foreach_lerp_(mine, theirs, 1 - self.decay)

    def forward(
        self, whole: Tensor, parts: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The logits of student and teacher, and the student's vectors.

        Args:
            whole: Global views (N, G, 3, S, S).
            parts: Local views, if any.
            mask: Masks (N, G, L), if any.

        Returns:
            The logits of the views: the student's (V, N, K) and the teacher's (G, N, K). Then those of the masked
            patches (M, K), of both (M is 0 without masks). Then the student's vectors (N, D) of the first views.
        """
        self._move_teacher()
        flat = _channels_last(whole.transpose(0, 1).flatten(0, 1))
        hidden = None if mask is None else mask.transpose(0, 1).flatten(0, 1)
        tokens, vectors = self._seen(self.net, flat, hidden)
        with torch.no_grad():
            self.standardise(vectors.float())
            teacher_tokens, teacher_vectors = self._seen(self.teacher[0], flat, None)
            teacher_logits = self.teacher[1](teacher_vectors)
        views = whole.shape[1]
        student_logits = [*self.head(vectors).chunk(views)]
        if parts is not None:
            small = _channels_last(parts.transpose(0, 1).flatten(0, 1))
            student_logits += self.head(self.net(small)).chunk(parts.shape[1])
        if hidden is None:
            none = teacher_logits[:0]
            return (
                torch.stack(student_logits),
                torch.stack(teacher_logits.chunk(views)),
                none,
                none,
                vectors.chunk(views)[0],
            )
        with torch.no_grad():
            patch_teacher = self.teacher[2](teacher_tokens[hidden])
        patch_student = self.patch_head(tokens[hidden])
        first = vectors.chunk(views)[0]
        return (
            torch.stack(student_logits),
            torch.stack(teacher_logits.chunk(views)),
            patch_student,
            patch_teacher,
            first,
        )

    def _seen(self, net: Any, views: Tensor, hidden: Tensor | None) -> tuple[Tensor, Tensor]:
        """Patch tokens (N, L, W) and output (N, D) of a network that does not see the ``hidden`` (N, L) patches."""
        if not self.patches:
            vectors = net(views)
            return vectors, vectors
        hook = None if hidden is None else net.patch_embed.register_forward_hook(self._hiding(hidden))
        try:
            tokens = net.forward_features(views)
        finally:
            if hook is not None:
                hook.remove()
        return tokens[:, net.num_prefix_tokens :], net.forward_head(tokens)

    def _hiding(self, hidden: Tensor) -> Callable[[Any, Any, Tensor], Tensor]:
        def hide(module: Any, inputs: Any, patches: Tensor) -> Tensor:
            return torch.where(hidden.view(*patches.shape[:-1], 1), self.mask_token.to(patches), patches)

        return hide


class _DinoHead(nn.Module):
    """A small network to a unit vector, whose cosines with the prototypes are the logits."""

    def __init__(self, features: int, settings: EncoderSettings) -> None:
        super().__init__()
        width, narrow = settings.head_width, min(_BOTTLENECK, settings.head_width)
        self.layers = nn.Sequential(
            nn.Linear(features, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, narrow)
        )
        self.prototypes = nn.Parameter(torch.randn(settings.prototypes, narrow))

    def forward(self, x: Tensor) -> Tensor:
        z, prototypes = (nn.functional.normalize(v.float(), dim=-1) for v in (self.layers(x), self.prototypes))
        return z @ prototypes.T


def distillation_loss(
    module: SelfDistilled, batch: Batch, settings: EncoderSettings
) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of every view of the student with every other global view of the teacher, and of hidden patches."""
    student_logits, teacher_logits, patch_student, patch_teacher, vectors = module(
        batch["global"], batch.get("local"), batch.get("mask")
    )
    student = (student_logits / _STUDENT_TEMPERATURE).log_softmax(-1)
    teacher = torch.stack([balanced(view) for view in teacher_logits])
    crosses = -torch.einsum("gnk,vnk->gv", teacher, student) / student_logits.shape[1]
    other = ~torch.eye(*crosses.shape, dtype=torch.bool, device=crosses.device)
    views, apart = crosses[other].mean(), spread_out(gathered(vectors.float()))
    loss = views + _KOLEO_WEIGHT * apart
    parts = {"views": views.detach(), "apart": apart.detach()}
    if len(patch_student):
        patches = -(balanced(patch_teacher) * (patch_student / _STUDENT_TEMPERATURE).log_softmax(-1)).sum(-1).mean()
        loss, parts["patches"] = loss + patches, patches.detach()
    return loss, parts


@torch.no_grad()
def balanced(logits: Tensor) -> Tensor:
    """The teacher's distributions (N, K) of cosines (N, K), all prototypes used alike over the batch of all processes:
    rows and columns of exp(logits / temperature) are scaled in turns (Sinkhorn & Knopp; Caron et al. 2020)."""
    everyone = gathered(logits.float())
    q = ((everyone - everyone.max()) / _TEACHER_TEMPERATURE).exp()
    for _ in range(_BALANCING_ROUNDS):
        q = q / q.sum(0, keepdim=True).clamp(min=1e-12)
        q = q / q.sum(1, keepdim=True).clamp(min=1e-12)
    return share_of_this_process(q)


def spread_out(vectors: Tensor) -> Tensor:
    """KoLeo: minus the mean logarithm of the distance of each vector to its nearest (Sablayrolles et al. 2019)."""
    z = nn.functional.normalize(vectors, dim=-1)
    with torch.no_grad():
        nearest = (z @ z.T - 2 * torch.eye(len(z), device=z.device)).argmax(1)
    return -((z - z[nearest]).norm(dim=1) + 1e-6).log().mean()


def random_mask(rng: np.random.Generator, patches: int, share: float) -> np.ndarray:
    """(patches,) bool: which are hidden; always the same number, at least one."""
    mask = np.zeros(patches, bool)
    mask[rng.permutation(patches)[: max(1, round(share * patches))]] = True
    return mask


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)
