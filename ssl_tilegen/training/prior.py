"""Stage `prior`: flow matching on windows of grids, each conditioned on a label, a text, a vector, or some of them.

Windows are cut from large grids. Small images (a few cells) stand alone, or several of one group are laid side by side
with the lattice at random: so the network also knows the inside of large areas. Now and then two sources share a
window, each cell conditioned on its own: without that, the network reads from the cells alone what they are.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssl_tilegen.bundle import ModelBundle, save_prior
from ssl_tilegen.config.train import PriorSettings
from ssl_tilegen.encoders.bundle_encoder import encoder_key
from ssl_tilegen.errors import FormatError, InputError, SettingError
from ssl_tilegen.nets import build_component
from ssl_tilegen.prior.sampling import sample_prior
from ssl_tilegen.prior.spec import LabelFacts, PriorInfo, TextFacts
from ssl_tilegen.system.atomic import writing
from ssl_tilegen.training.data.batches import Batch
from ssl_tilegen.training.data.caption_cache import caption_vectors
from ssl_tilegen.training.data.prior_cells import Piece, Seen, pieces_of
from ssl_tilegen.training.data.prior_table import PriorRow, PriorTable
from ssl_tilegen.training.data.prior_windows import PieceSampler, Placed, cut, placed, shared
from ssl_tilegen.training.stage import Stage, StageContext

_SHOWN_CELLS, _SHOWN_STEPS, _SWATCH_PX = 6, 16, 16
_LEAST_DEVIATION = 1e-3
_FINEST = 4  # positions along a side of a cell at the finest level of GridUNet, by default


class PriorStage(Stage):
    """Trains a prior on the pieces of a table."""

    def __init__(
        self,
        settings: PriorSettings,
        bundle: ModelBundle,
        rows: list[PriorRow],
        pieces: list[Piece],
        seen: list[Seen],
        texts: dict[str, np.ndarray],
        text: TextFacts | None,
    ) -> None:
        self.settings, self.bundle, self.rows, self.pieces = settings, bundle, rows, pieces
        self._texts = texts
        self.info = prior_info(settings, bundle, rows, seen, text)
        self._parts = self.info.parts
        torch.manual_seed(settings.run.seed)
        self.module = self._network()
        self._set_statistics()
        self._draw = PieceSampler(rows, pieces, settings.balance)

    @classmethod
    def load_data(cls, settings: PriorSettings, context: StageContext) -> PriorTable:
        """Read the table of images and grids."""
        return PriorTable.read(Path(settings.table))

    @classmethod
    def prepare(cls, settings: PriorSettings, data: PriorTable, context: StageContext) -> PriorStage:
        """Embed the images of the table, encode its texts, and make the network."""
        bundle, rows, cache = context.source_bundle(settings.bundle, "encoder"), data.rows, context.cache
        texts, facts = caption_vectors(settings.text_encoder, rows, cache, context.processes.device, context.say)
        pieces, seen = pieces_of(rows, bundle, settings.turns, settings.run.seed, cache, context.say)
        return cls(settings, bundle, rows, pieces, seen, texts, facts)

    def export(self, module: Any, context: StageContext) -> None:
        """Save the averaged prior into the bundle."""
        run = json.loads(self.settings.run.model_dump_json())
        save_prior(module, self.info.model_copy(update={"training": run}), context.bundle_folder)

    def _network(self) -> Any:
        """The network that ``[net]`` asks for, with its arguments."""
        encoder = self.bundle.info.encoder
        name = self.settings.net.get("_class_name") or self._best_class()
        if name not in ("GridPrior", "GridUNet"):
            raise SettingError(f"[net] _class_name '{name}': no prior; use GridUNet or GridPrior")
        config: dict[str, Any] = {
            "_class_name": name, "dim": encoder.dim, "condition_dim": self.info.condition_dim,
            "labels": len(self.info.labels),
        }  # fmt: skip
        if name == "GridUNet":
            if not encoder.layout_dim:
                raise SettingError(f"[net] _class_name 'GridUNet': {encoder.id} gives no layout part; use GridPrior")
            config |= {"layout_dim": encoder.layout_dim, "layout_px": self.bundle.encoder.layout_px}
        try:
            return build_component(config | self.settings.net)
        except FormatError as error:
            raise SettingError(f"[net]: {error}") from None

    def _best_class(self) -> str:
        """GridUNet for vectors with a layout part, unless ``[net]`` has arguments that only GridPrior takes."""
        encoder, of_cells = self.bundle.info.encoder, {"width", "blocks", "expansion"}
        fits = encoder.layout_dim and self.bundle.encoder.layout_px % _FINEST == 0
        return "GridUNet" if fits and not of_cells & self.settings.net.keys() else "GridPrior"

    def _set_statistics(self) -> None:
        cells = np.concatenate([piece.cells[piece.state >= 0] for piece in self.pieces]).astype(np.float32)
        deviation = np.append(cells.std(0).clip(_LEAST_DEVIATION), 1.0)
        of_kept = np.sqrt(deviation[:-1] / np.mean(deviation[:-1]))
        clean = np.append(of_kept / np.sqrt(np.mean(of_kept**2)), 1.0)
        net = self.module
        for buffer, values in (
            (net.mean, np.append(cells.mean(0), 0.0)), (net.scale, clean / deviation), (net.clean_std, clean),
        ):  # fmt: skip
            buffer.copy_(torch.from_numpy(values.astype(np.float32)))
        if hasattr(net, "set_layout"):
            net.set_layout(self.bundle.encoder.layout.weight)
        condition = np.stack([self._condition(row, wording=0) for row in self.rows])
        labels = self._parts["label"]
        mean, std = np.nan_to_num(np.nanmean(condition, 0)), np.nan_to_num(np.nanstd(condition, 0), nan=1.0)
        mean[labels], std[labels] = 0.0, self.settings.label_deviation
        net.condition_mean.copy_(torch.from_numpy(mean))
        net.condition_std.copy_(torch.from_numpy(std.clip(_LEAST_DEVIATION)))
        net.anchors.copy_(torch.from_numpy(np.nan_to_num(self._anchors(condition))))

    def _anchors(self, condition: np.ndarray) -> np.ndarray:
        """The mean condition of the rows of each label (L, C): by it a text finds its domain."""
        names = self.info.names
        of_row = [row.label for row in self.rows]
        means = [np.nanmean(condition[[label == name for label in of_row]], 0) for name in names]
        return np.stack(means).astype(np.float32) if names else np.zeros((0, condition.shape[1]), np.float32)

    def _condition(self, row: PriorRow, wording: int | None) -> np.ndarray:
        """All that is known of a row (C,), NaN for the rest; ``wording`` says which of its captions."""
        condition = np.full(self.info.condition_dim, np.nan, np.float32)
        if row.label is not None:
            condition[self._parts["label"]] = self.info.one_hot(row.label)
        if row.captions and self.info.text and wording is not None:
            condition[self._parts["text"]] = self._texts[row.captions[wording % len(row.captions)]]
        if row.vector is not None:
            condition[self._parts["vector"]] = row.vector
        return condition

    def item(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """A window of cells with its condition, noise and time."""
        s = self.settings
        first = self._draw(rng)
        window, side = self._window(first, rng), s.window_cells
        told = self._partly(first, rng)[:, None, None]
        condition = np.broadcast_to(told, (self.info.condition_dim, side, side)).copy()
        if rng.random() < s.borders:
            second = self._draw(rng, like=first)
            window, other = shared(window, self._window(second, rng), rng)
            condition[:, other] = self._partly(second, rng)[:, None]
        if rng.random() < s.drop:
            condition[:] = np.nan
        t = 1 / (1 + np.exp(-(s.time_mean + s.time_spread * rng.standard_normal())))
        cells, state, joints = window
        x = np.concatenate([cells.astype(np.float32), np.where(state > 0, 1.0, -1.0)[..., None].astype(np.float32)], -1)
        return {
            "clean": np.ascontiguousarray(x.transpose(2, 0, 1)),
            "state": state[None].astype(np.float32),
            "joints": joints.astype(np.float32),
            "condition": condition,
            "noise": rng.standard_normal((x.shape[-1], *state.shape), np.float32),
            "t": np.array(t, np.float32),
        }

    def _partly(self, piece: Piece, rng: np.random.Generator) -> np.ndarray:
        """The condition of a piece: each of label, text and vector by chance, but never none of those there are."""
        row = self.rows[piece.row]
        condition = self._condition(row, int(rng.integers(1 << 16)))
        there = [
            part for part in self._parts.values() if part.stop > part.start and not np.isnan(condition[part]).any()
        ]
        kept = [part for part in there if rng.random() < self.settings.keep_part]
        kept = kept or ([there[int(rng.integers(len(there)))]] if there else [])
        for part in there:
            if part not in kept:
                condition[part] = np.nan
        text = self._parts["text"]
        condition[text] += self.settings.text_noise * rng.standard_normal(text.stop - text.start).astype(np.float32)
        return condition

    def _window(self, piece: Piece, rng: np.random.Generator) -> Placed:
        """A window's worth of a piece: a cut, one small piece, or a mosaic."""
        side = self.settings.window_cells
        if min(piece.state.shape) >= side:
            return cut(piece, side, rng)
        if rng.random() < self.settings.alone:
            row, col = (int(rng.integers(min(0, side - n), max(0, side - n) + 1)) for n in piece.state.shape)
            return placed([(piece, row, col)], side)
        return placed(list(self._mosaic(piece, side, rng)), side)

    def _mosaic(self, piece: Piece, side: int, rng: np.random.Generator) -> Any:
        """Pieces of one group side by side, the lattice of them at random."""
        rows, cols = piece.state.shape
        top, left = -int(rng.integers(rows)), -int(rng.integers(cols))
        for row in range(top, side, rows):
            for col in range(left, side, cols):
                yield self._draw.sibling(piece, rng), row, col

    def loss(self, module: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Squared error of the velocity over the cells inside."""
        state, noise, t = batch["state"], batch["noise"], batch["t"]
        inside = (state > -2).to(noise.dtype)
        clean = (batch["clean"] - self._column("mean", noise)) * self._column("scale", noise)
        clean = torch.where(state >= 0, clean, torch.cat([torch.zeros_like(clean[:, :-1]), clean[:, -1:]], 1))
        time = t[:, None, None, None]
        velocity = module((1 - time) * clean + time * noise, t, batch["condition"], inside, batch["joints"])
        error = (velocity.float() - (noise - clean)).square()
        of_cells = _mean(error[:, :-1], (state >= 0).to(noise.dtype))
        of_validity = _mean(error[:, -1:], inside)
        return of_cells + of_validity / 16, {"cells": of_cells.detach(), "validity": of_validity.detach()}

    def _column(self, name: str, like: Tensor) -> Tensor:
        return getattr(self.module, name).to(like)[:, None, None]

    @torch.no_grad()
    def sample(self, module: Any, path: Path) -> dict[str, float]:
        """One row a label: a real window beside a sampled one, as coarse images (or principal components)."""
        rng, images = np.random.default_rng(0), []
        for name in self.info.names:
            piece = self._draw(rng, label=name)
            condition = self._condition(self.rows[piece.row], None)
            field = np.broadcast_to(condition[:, None, None], (len(condition), _SHOWN_CELLS, _SHOWN_CELLS))
            sampling = self.info.sampling.model_copy(update={"steps": _SHOWN_STEPS})
            drawn = sample_prior(module, np.ascontiguousarray(field), sampling, 0)
            real = np.zeros_like(drawn.embedding)
            part = piece.cells[:_SHOWN_CELLS, :_SHOWN_CELLS]
            real[: part.shape[0], : part.shape[1]] = part
            images.append((real, drawn.embedding))
        lines = [np.concatenate([coarse_image(part, self.bundle) for part in pair], 1) for pair in images]
        with writing(path) as fresh:
            Image.fromarray(np.concatenate(lines, 0)).save(fresh)
        return {}


def coarse_image(cells: np.ndarray, bundle: ModelBundle) -> np.ndarray:
    """Cells (R, K, D) as an image (R * 16, K * 16, 3): decoded from their layout part where they have one, else their
    principal components."""
    layout = bundle.info.encoder.layout_dim
    if not layout:
        return _swatches(cells)
    coarse = bundle.encoder.decode_layout(torch.from_numpy(cells[..., -layout:].astype(np.float32)))
    image = coarse.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
    return ((image.clamp(-1, 1) + 1) * 127.5).round().byte().numpy()


def prior_info(
    settings: PriorSettings, bundle: ModelBundle, rows: list[PriorRow], seen: list[Seen], text: TextFacts | None
) -> PriorInfo:
    """The metadata of a prior that is trained on ``rows``. InputError for labels of two domains."""
    labels: dict[str, LabelFacts] = {}
    for row, facts in zip(rows, seen, strict=True):
        if row.label is None:
            continue
        measure: Any = (facts.resolution.value, facts.resolution.unit)
        found = LabelFacts(domain=_domain(row, facts, bundle), resolution=measure, background=facts.background)
        known = labels.setdefault(row.label, found)
        if known.domain != found.domain:
            raise InputError(f"label '{row.label}' is of domain {known.domain} and {found.domain}; use two labels")
    lengths = [len(row.vector) for row in rows if row.vector is not None]
    info = PriorInfo(
        encoder_sha256=encoder_key(bundle),
        stride_px=bundle.info.encoder.tile_px,
        labels=dict(sorted(labels.items(), key=lambda pair: (pair[1].domain, pair[0]))),
        text=text,
        vector_dim=max(lengths, default=0),
    )
    if not info.condition_dim:
        raise InputError(f"{settings.table}: has no labels, captions or vectors; a prior needs one of them")
    if not labels:
        raise InputError(f"{settings.table}: has no labels; give at least one, by which the resolution is known")
    return info


def _domain(row: PriorRow, seen: Seen, bundle: ModelBundle) -> str:
    """The domain of the table, else the bundle's for the row's unit."""
    of_unit = [name for name, (_, unit) in bundle.info.resolutions.items() if unit == seen.resolution.unit]
    return row.domain or next(iter(of_unit), seen.resolution.unit)


def _mean(error: Tensor, weight: Tensor) -> Tensor:
    """Over all channels of the cells with weight 1; ``weight`` is (N, 1, R, K)."""
    return (error * weight).sum() / (weight.sum() * error.shape[1]).clamp_min(1)


def _swatches(cells: np.ndarray) -> np.ndarray:
    """Principal components of cells (R, K, D) as flat colours (R * 16, K * 16, 3)."""
    flat = cells.reshape(-1, cells.shape[-1]).astype(np.float32)
    centred = flat - flat.mean(0)
    _, _, basis = np.linalg.svd(centred, full_matrices=False)
    values = centred @ basis[:3].T
    values = np.pad(values, ((0, 0), (0, 3 - values.shape[1])))
    scaled = 127.5 + 50 * values / values.std(0).clip(1e-6)
    colours = scaled.clip(0, 255).astype(np.uint8).reshape(*cells.shape[:2], 3)
    return colours.repeat(_SWATCH_PX, 0).repeat(_SWATCH_PX, 1)
