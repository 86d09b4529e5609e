"""Every option of the commands, one file a command: its type, default, unit, meaning and command-line option.

The command line is made from these classes, and a TOML file given by ``--config`` holds the same names; options
override the file. Unknown keys are errors. (Those of `train` are in ``config/train``.)
"""

from ssl_tilegen.config.augment import AugmentSettings
from ssl_tilegen.config.embed import EmbedSettings
from ssl_tilegen.config.evaluate import EvaluateSettings
from ssl_tilegen.config.generate import GenerateSettings
from ssl_tilegen.config.loading import load_settings
from ssl_tilegen.config.options import Settings, option_name

__all__ = [
    "AugmentSettings",
    "EmbedSettings",
    "EvaluateSettings",
    "GenerateSettings",
    "Settings",
    "load_settings",
    "option_name",
]
