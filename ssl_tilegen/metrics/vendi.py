"""How many different things are in a set? (Friedman and Dieng 2022, arXiv 2210.02410)"""

from __future__ import annotations

import numpy as np


def vendi_score(x: np.ndarray, centre: np.ndarray | None = None) -> float:
    """Effective number of different vectors in (N, D), from 1 (all alike) to N, by cosine about ``centre`` (D,).

    The exponential of the entropy of the eigenvalues of the cosine matrix over N. They are those of the D x D matrix
    of second moments too, so the cost does not grow with N squared.
    """
    vectors = x.astype(np.float64) - (0 if centre is None else centre)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
    small = vectors.T @ vectors if vectors.shape[1] < len(vectors) else vectors @ vectors.T
    shares = np.linalg.eigvalsh(small / len(vectors))
    shares = shares[shares > 1e-12]
    return float(np.exp(-(shares * np.log(shares)).sum()))
