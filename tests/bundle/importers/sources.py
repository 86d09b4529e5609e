"""Published models as their authors' files hold them, with random weights."""

from __future__ import annotations

import json
import sys
import types
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.bundle.importers.states import (
    PixCell,
    State,
    UNet,
    filled,
    large_image_diffusion,
    pixcell_shapes,
    project_yaml,
)


@contextmanager
def foreign_class(module: str, name: str) -> Any:
    """A class that pickles as ``module.name``, of a library that is not installed."""
    made = {}
    for depth in range(1, module.count(".") + 2):
        part = ".".join(module.split(".")[:depth])
        if part not in sys.modules:
            made[part] = sys.modules[part] = types.ModuleType(part)
    kind = type(name, (dict,), {"__module__": module, "__qualname__": name})
    setattr(sys.modules[module], name, kind)
    try:
        yield kind
    finally:
        for part in made:
            del sys.modules[part]


def lightning_checkpoint(path: Path, state: State) -> Path:
    """A checkpoint as Lightning writes it: weights beside configuration objects, an optimiser and counters."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with foreign_class("omegaconf.dictconfig", "DictConfig") as config:
        optimiser = {"state": {0: {"exp_avg": torch.zeros(9), "step": 5}}, "param_groups": [{"lr": 1e-4}]}
        torch.save(
            {
                "epoch": 3,
                "global_step": 7,
                "state_dict": state,
                "optimizer_states": [optimiser],
                "callbacks": {"ModelCheckpoint": {"best": config(a=1)}},
                "hyper_parameters": config(b=[2]),
            },
            path,
        )
    return path


def lid_folder(folder: Path, state: State | None = None, net: UNet | None = None, *, target: str = "crc") -> Path:
    """A folder of Large-Image-Diffusion: CRC at 20x unless another state is given."""
    net = net or UNet()
    state = state or large_image_diffusion(16, region=False, net=net)
    lightning_checkpoint(folder / "checkpoints" / "last.ckpt", state)
    (folder / "configs").mkdir()
    data = {"crc": "crc_only_patch.TCGADataset", "brca": "brca_only_ssl.TCGADataset", "naip": "naip_ssl.NAIPDataset"}
    for index, text in enumerate(["not: this one", project_yaml(net, f"ldm.data.hybrid_cond.{data[target]}")]):
        (folder / "configs" / f"2023-0{index + 1}-project.yaml").write_text(text)
    return folder


def pixcell_folder(folder: Path, net: PixCell, *, vae: bool = True) -> tuple[Path, State]:
    """A folder of PixCell in diffusers layout, and the state of its transformer."""
    state = filled(pixcell_shapes(net), 5)
    (folder / "transformer").mkdir(parents=True)
    (folder / "transformer" / "config.json").write_text(json.dumps(net.config))
    save_file(state, folder / "transformer" / "diffusion_pytorch_model.safetensors")
    (folder / "scheduler").mkdir()
    scheduler = {
        "_class_name": "DPMSolverMultistepScheduler",
        "beta_schedule": "linear",
        "beta_start": 0.0001,
        "beta_end": 0.02,
        "num_train_timesteps": 1000,
        "prediction_type": "epsilon",
        "solver_order": 2,
    }
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    model = sd35_vae(net.channels)
    (folder / "vae").mkdir()
    model.save_config(folder / "vae")
    if vae:
        model.save_pretrained(folder / "vae")
    return folder, state


def sd35_vae(channels: int = 4) -> Any:
    """The autoencoder of Stable Diffusion 3.5, narrow."""
    from diffusers import AutoencoderKL

    torch.manual_seed(7)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=4,
        scaling_factor=1.5305,
        shift_factor=0.0609,
        use_quant_conv=False,
        use_post_quant_conv=False,
        sample_size=1024,
    )
