"""One label for a whole image from the vectors of its tiles: attention pooling (Ilse et al. 2018, arXiv 1802.04712)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn


class AttentionMil(nn.Module):
    """A bag (N, D) -> class scores (C,): tiles weighted by gated attention, a linear layer over their mean."""

    def __init__(self, dim: int, classes: int, hidden: int = 64) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(0.25))
        self.value, self.gate = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.weigh, self.head = nn.Linear(hidden, 1), nn.Linear(hidden, classes)

    def forward(self, bag: Tensor) -> tuple[Tensor, Tensor]:
        """Class scores (C,) and the attention (N,) of each tile, which sums to 1."""
        x = self.embed(bag)
        attention = self.weigh(torch.tanh(self.value(x)) * torch.sigmoid(self.gate(x)))[:, 0].softmax(0)
        return self.head(attention @ x), attention


def fit_mil(
    bags: Sequence[np.ndarray], labels: np.ndarray, classes: int, seed: int, *, epochs: int = 40, tiles: int = 512
) -> Callable[[Sequence[np.ndarray]], np.ndarray]:
    """Fit to bags of vectors (N_i, D) and labels (B,); returns bags -> probabilities (B, classes).

    Features are standardised by the training bags; a step sees at most ``tiles`` random tiles of one image; classes
    count alike however many images they have.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    mean, std = _statistics(bags)
    model = AttentionMil(len(mean), classes)
    weight = torch.from_numpy(1 / np.maximum(np.bincount(labels, minlength=classes), 1)).float()
    weight *= len(np.unique(labels)) / weight[np.unique(labels)].sum()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
    for _ in range(epochs):
        for i in rng.permutation(len(bags)):
            chosen = bags[i][rng.permutation(len(bags[i]))[:tiles]]
            said, _ = model(torch.from_numpy(((chosen - mean) / std).astype(np.float32)))
            loss = -weight[labels[i]] * said.log_softmax(0)[labels[i]]
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    model.eval()

    @torch.no_grad()
    def predict(tested: Sequence[np.ndarray]) -> np.ndarray:
        scores = [model(torch.from_numpy(((bag - mean) / std).astype(np.float32)))[0].softmax(0) for bag in tested]
        return torch.stack(scores).numpy()

    return predict


def _statistics(bags: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and spread (D,) over bags, each of which counts alike."""
    mean = np.mean([bag.mean(0, dtype=np.float64) for bag in bags], axis=0)
    square = np.mean([np.square(bag - mean, dtype=np.float64).mean(0) for bag in bags], axis=0)
    return mean, np.sqrt(square).clip(1e-6)
