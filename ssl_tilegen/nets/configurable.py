"""Networks that know the arguments they were made with, in diffusers' layout, without its import.

``config.json`` beside the weights names the class (``_class_name``) and its arguments, as diffusers' own networks have
it; importing diffusers takes longer than importing torch.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, Self

from torch import nn

from ssl_tilegen.errors import FormatError


class Config(dict[str, Any]):
    """Arguments by name, as keys and as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class ConfigurableNetwork(nn.Module):
    """A network whose ``__init__`` is decorated by `register_to_config`; ``config`` holds its arguments."""

    config: Config
    _supports_gradient_checkpointing = False

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The network of a configuration, with random weights. FormatError for arguments that it does not take."""
        known = inspect.signature(cls.__init__).parameters
        given = {name: value for name, value in config.items() if not name.startswith("_")}
        if unknown := sorted(set(given) - set(known)):
            raise FormatError(f"{cls.__name__}: unknown argument '{unknown[0][:100]}'; upgrade ssl-tilegen")
        return cls(**given)

    def save_config(self, folder: str | Path) -> None:
        """Write ``config.json``."""
        values = {"_class_name": type(self).__name__} | self.config
        (Path(folder) / "config.json").write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")

    def enable_gradient_checkpointing(self) -> None:
        """Keep no activations inside of blocks: they are computed again in the backward pass."""
        for module in self.modules():
            if hasattr(module, "gradient_checkpointing"):
                module.gradient_checkpointing = True  # type: ignore[assignment]


def register_to_config(init: Callable[..., None]) -> Callable[..., None]:
    """An ``__init__`` that records its arguments, defaults too, in ``config``."""
    signature = inspect.signature(init)

    @wraps(init)
    def recorded(self: ConfigurableNetwork, *args: Any, **kwargs: Any) -> None:
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        init(self, *args, **kwargs)
        self.config = Config({name: value for name, value in bound.arguments.items() if name != "self"})

    return recorded
