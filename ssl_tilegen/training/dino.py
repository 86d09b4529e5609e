"""Self-distillation: a student tells from a crop what its own moving average, the teacher, makes of the whole tile.

DINO (Caron et al. 2021, arXiv 2104.14294) on whole views; for vision transformers also iBOT (Zhou et al. 2022, arXiv
2111.07832): the student does not see some patches of a global view and must tell what the teacher makes of them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssl_tilegen.training.batches import Batch
from ssl_tilegen.training.embedder import Embedder
from ssl_tilegen.training.settings import EncoderSettings
from ssl_tilegen.training.team import mean_of_all

_STUDENT_HEAT, _TEACHER_HEAT = 0.1, 0.04
_CENTRE_DECAY = 0.9
_BOTTLENECK = 128


class SelfDistilled(Embedder):
    """Student (``net`` and heads), teacher, and the teacher's centres. ``patches``: of a global view, 0 if no ViT."""

    def __init__(self, net: nn.Module, settings: EncoderSettings) -> None:
        super().__init__(net, settings.features)
        grid = getattr(getattr(net, "patch_embed", None), "grid_size", None)
        is_vit = grid is not None and hasattr(net, "num_prefix_tokens") and settings.masked > 0
        self.patches = int(np.prod(grid)) if is_vit else 0
        self.decay = settings.teacher_decay
        self.head = _Head(settings.features, settings)
        self.register_buffer("centre", torch.zeros(settings.prototypes))
        if self.patches:
            width = int(net.embed_dim)  # type: ignore[arg-type]
            self.patch_head = _Head(width, settings)
            self.mask_token = nn.Parameter(torch.zeros(width))
            self.register_buffer("patch_centre", torch.zeros(settings.prototypes))
        self.teacher = self._copy()

    def _student(self) -> list[nn.Module]:
        return [self.net, self.head, *([self.patch_head] if self.patches else [])]

    def _copy(self) -> Any:
        return nn.ModuleList(copy.deepcopy(self._student())).requires_grad_(False)

    @torch.no_grad()
    def start_teacher(self) -> None:
        """Make the teacher what the student is now."""
        self.teacher.load_state_dict(nn.ModuleList(self._student()).state_dict())

    @torch.no_grad()
    def _move_teacher(self) -> None:
        mine, theirs = list(self.teacher.parameters()), list(nn.ModuleList(self._student()).parameters())
        torch._foreach_lerp_(mine, theirs, 1 - self.decay)

    def forward(self, whole: Tensor, parts: Tensor | None, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Global views (N, G, 3, S, S), local ones and masks (N, G, L) -> the student's logits (V, N, K) and the
        teacher's (G, N, K) of the views, and of the masked patches (M, K) each (M is 0 without masks)."""
        self._move_teacher()
        flat = _channels_last(whole.transpose(0, 1).flatten(0, 1))
        hidden = None if mask is None else mask.transpose(0, 1).flatten(0, 1)
        tokens, vectors = self._seen(self.net, flat, hidden)
        with torch.no_grad():
            self.standardise(vectors.float())
            teacher_tokens, teacher_vectors = self._seen(self.teacher[0], flat, None)
            taught = self.teacher[1](teacher_vectors)
        views = whole.shape[1]
        told = [*self.head(vectors).chunk(views)]
        if parts is not None:
            small = _channels_last(parts.transpose(0, 1).flatten(0, 1))
            told += self.head(self.net(small)).chunk(parts.shape[1])
        if hidden is None:
            none = vectors.new_zeros((0, self.centre.numel()))
            return torch.stack(told), torch.stack(taught.chunk(views)), none, none
        with torch.no_grad():
            patches_taught = self.teacher[2](teacher_tokens[hidden])
        return torch.stack(told), torch.stack(taught.chunk(views)), self.patch_head(tokens[hidden]), patches_taught

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


class _Head(nn.Module):
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
    told, taught, patches_told, patches_taught = module(batch["global"], batch.get("local"), batch.get("mask"))
    student = (told / _STUDENT_HEAT).log_softmax(-1)
    teacher = ((taught - module.centre) / _TEACHER_HEAT).softmax(-1)
    crosses = -torch.einsum("gnk,vnk->gv", teacher, student) / told.shape[1]
    other = ~torch.eye(*crosses.shape, dtype=torch.bool, device=crosses.device)
    views = crosses[other].mean()
    loss, parts = views, {"views": views.detach()}
    with torch.no_grad():
        parts["entropy"] = -(teacher * teacher.clamp(min=1e-8).log()).sum(-1).mean()
        _follow(module.centre, taught.flatten(0, -2))
    if len(patches_told):
        wanted = ((patches_taught - module.patch_centre) / _TEACHER_HEAT).softmax(-1)
        patches = -(wanted * (patches_told / _STUDENT_HEAT).log_softmax(-1)).sum(-1).mean()
        loss, parts["patches"] = loss + patches, patches.detach()
        _follow(module.patch_centre, patches_taught)
    return loss, parts


@torch.no_grad()
def _follow(centre: Any, logits: Tensor) -> None:
    centre.lerp_(mean_of_all(logits.mean(0)), 1 - _CENTRE_DECAY)


def random_mask(rng: np.random.Generator, patches: int, share: float) -> np.ndarray:
    """(patches,) bool: which are hidden; always the same number, at least one."""
    mask = np.zeros(patches, bool)
    mask[rng.permutation(patches)[: max(1, round(share * patches))]] = True
    return mask


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)
