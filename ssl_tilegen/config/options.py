"""The declaration of an option, and the options that every command has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from ssl_tilegen.geometry import Resolution
from ssl_tilegen.system.budget import MAX_GPX
from ssl_tilegen.system.resources import reading_threads


def option(
    default: Any,
    meaning: str,
    flag: str,
    *more: str,
    default_text: str = "",
    metavar: str = "",
    panel: str = "",
    **limits: Any,
) -> Any:
    """A field that is an option of the command line.

    Args:
        default: The default; None where it is found at run time.
        meaning: The description. Its first sentence is the option's line in ``--help``.
        flag: The option's name, such as ``--size``.
        *more: Other names.
        default_text: What a default of None means, in words.
        metavar: A word for the value, where the type says too little.
        panel: The group of the option in the help; `ADVANCED` ones are only named in ``--help``.
        **limits: Bounds for pydantic, such as ``gt=0``.
    """
    extra: dict[str, Any] = {"options": [flag, *more], "default_text": default_text, "metavar": metavar, "panel": panel}
    return Field(default, description=meaning, json_schema_extra=extra, **limits)


COMMON, ADVANCED = "Common", "Advanced"
OVERWRITE_MEANING = (
    "Replace a finished output. Texts that you edited are left; an edited image or grid is replaced as long as its "
    "metadata name this program."
)
MAX_GPX_MEANING = "Largest image or canvas to accept, in gigapixels."
MAX_GIB_MEANING = "Most memory to use, in GiB."


def _takes_path(annotation: Any) -> bool:
    return annotation is Path or Path in get_args(annotation)


class Strict(BaseModel):
    """Settings that are frozen, and whose unknown keys are errors. A docstring below a field is its description."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        defer_build=True,
        arbitrary_types_allowed=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_empty_path(cls, value: Any, info: ValidationInfo) -> Any:
        """The empty text would be the working folder."""
        if value == "" and isinstance(value, str) and _takes_path(cls.model_fields[str(info.field_name)].annotation):
            raise ValueError("is empty; give a path")
        return value

    renamed: ClassVar[Mapping[str, str]] = {}
    """Dotted keys that have another name today: old -> new. Files and ``--set`` may use either."""


class Settings(Strict):
    """Options that every command has."""

    device: str = option("auto", "auto, cpu, cuda or cuda:I.", "--device", metavar="DEVICE", panel=COMMON)
    batch: int | None = option(
        None, "Tiles or windows per network call.", "--batch", default_text="to fit", panel=COMMON, gt=0
    )
    restart: bool = option(False, "Start over instead of continuing.", "--restart", panel=COMMON)
    overwrite: bool = option(False, OVERWRITE_MEANING, "--overwrite", panel=COMMON)
    max_gpx: float | None = option(
        None, MAX_GPX_MEANING, "--max-gpx", default_text=f"{MAX_GPX:g}", panel=ADVANCED, gt=0
    )
    max_gib: float | None = option(
        None, MAX_GIB_MEANING, "--max-gib", default_text="most of what is free", panel=ADVANCED, gt=0
    )


class Reading:
    """Values derived from the options ``mpp``, ``gsd`` and ``threads``."""

    @property
    def resolution(self: Any) -> Resolution | None:
        """The resolution that --mpp or --gsd state."""
        return Resolution.stated(self.mpp, self.gsd)

    @property
    def reading_threads(self: Any) -> int:
        """``threads``, or one per core."""
        return self.threads or reading_threads()


def option_name(kind: type[BaseModel], name: str) -> str:
    """The command-line option of a field; empty where it has none."""
    field = kind.model_fields.get(name)
    extra = field.json_schema_extra if field else None
    return extra["options"][0] if isinstance(extra, dict) else ""  # type: ignore[index,return-value]


def choose_from(option: str, names: tuple[str, ...], known: tuple[str, ...]) -> None:
    """ValueError for the first of ``names`` that is not ``known``."""
    for name in names:
        if name not in known:
            raise ValueError(f"{option} {name}: unknown; choose from {', '.join(known)}")


def exclusive(settings: Settings, first: str, second: str) -> None:
    """ValueError where two options are given of which one is meant."""
    if getattr(settings, first) is not None and getattr(settings, second) is not None:
        kind = type(settings)
        raise ValueError(f"give {option_name(kind, first)} or {option_name(kind, second)}, not both")
