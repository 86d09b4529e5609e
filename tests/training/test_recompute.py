"""Every network of ours can compute its activations again instead of keeping them, with the same gradients."""

from __future__ import annotations

import pytest
import torch

from ssl_tilegen.nets import build_component
from ssl_tilegen.training.loop import recompute_activations

LATENTS = {"latent_channels": 4, "condition_dim": 6}
NETS = {
    "FieldUNet": (LATENTS | {"widths": (16, 16, 32), "hidden": 16}, (2, 4, 8, 8), (2, 6, 2, 2)),
    "WindowDiT": (LATENTS | {"sample_size": 8, "width": 32, "depth": 2, "heads": 2}, (2, 4, 8, 8), (2, 1, 6)),
    "GridPrior": ({"dim": 5, "condition_dim": 6, "width": 16, "blocks": 2, "hidden": 16}, (2, 6, 4, 4), (2, 6, 4, 4)),
    "GridUNet": ({"dim": 5, "layout_dim": 3, "layout_px": 4, "condition_dim": 6, "widths": (8, 16), "hidden": 16,
                  "down_blocks": (1, 1), "up_blocks": (1,)}, (2, 6, 4, 4), (2, 6, 4, 4)),
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_gradients_are_the_same_when_activations_are_computed_again(name):
    arguments, shape, told = NETS[name]
    torch.manual_seed(0)
    net = build_component({"_class_name": name, **arguments})
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, t, condition = torch.randn(shape), torch.rand(shape[0]), torch.randn(told)

    def gradients() -> tuple[list[torch.Tensor], int]:
        kept = []
        net.zero_grad()
        with torch.autograd.graph.saved_tensors_hooks(lambda v: kept.append(v.numel()) or v, lambda v: v):
            out = net(x, t, condition)
            loss = getattr(out, "sample", out).square().mean()
        loss.backward()
        return [p.grad.clone() for p in net.parameters() if p.grad is not None], sum(kept)

    wanted, much = gradients()
    recompute_activations(net)
    found, less = gradients()
    assert len(wanted) == len(found) and all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))
    assert less < much
