"""The metadata of an OME-Zarr image, validated: axes, levels, sizes of pixels, colours, our georeference."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ssl_tilegen.geometry import Resolution

_METRES = {"angstrom": 1e-10, "nanometer": 1e-9, "micrometer": 1e-6, "millimeter": 1e-3, "centimeter": 1e-2,
           "meter": 1.0, "kilometer": 1e3}  # fmt: skip
_Text = Annotated[str, Field(max_length=10_000)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class _OmeAxis(_Part):
    name: _Text
    unit: _Text | None = None

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        return {"name": given} if isinstance(given, str) else given  # as version 0.3 has them


class _Transformation(_Part):
    """A coordinate transformation; of those only scales are used."""

    type: _Text
    scale: list[float] | None = Field(default=None, max_length=10)


class _Dataset(_Part):
    path: Annotated[str, Field(min_length=1, max_length=1000)]
    coordinateTransformations: list[_Transformation] = Field(default=[], max_length=10)  # noqa: N815 (the format's name)


class _Channel(_Part):
    color: _Text = ""


class _Omero(_Part):
    channels: list[_Channel] = Field(default=[], max_length=100_000)


class Georeference(_Part):
    """CRS and affine transform (a, b, c, d, e, f) as `ssl_tilegen` writes them."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    crs: _Text | None = None
    transform: tuple[float, float, float, float, float, float] | None = None

    @model_validator(mode="after")
    def _has_area(self) -> Georeference:
        if self.transform and not self.transform[0] * self.transform[4] - self.transform[1] * self.transform[3]:
            raise ValueError("the transform makes a pixel of no area")
        return self


class Multiscale(_Part):
    """The first image of a group: ``axes`` of all its levels, y and x the last ones, and a dataset for each level."""

    axes: list[_OmeAxis] = Field(min_length=2, max_length=10)
    datasets: list[_Dataset] = Field(min_length=1, max_length=100)
    coordinateTransformations: list[_Transformation] = Field(default=[], max_length=10)  # noqa: N815

    @model_validator(mode="after")
    def _fits(self) -> Multiscale:
        if self.names[-2:] != ["y", "x"]:
            raise ValueError(f"its last axes are {', '.join(self.names[-2:])}, not y, x")
        if any(step.scale is not None and len(step.scale) != len(self.axes) for step in self._steps):
            raise ValueError("a scale has another number of axes than the image")
        return self

    @property
    def names(self) -> list[str]:
        """The names of the axes, in their order."""
        return [axis.name for axis in self.axes]

    @property
    def _steps(self) -> list[_Transformation]:
        return [*self.datasets[0].coordinateTransformations, *self.coordinateTransformations]

    def resolution(self) -> Resolution | None:
        """Of level 0: the geometric mean of y and x, in m where the unit is metres or more, else in um. None where it
        is not said, or is no positive finite number."""
        metres = [_METRES.get(axis.unit or "", math.nan) for axis in self.axes[-2:]]
        is_large = metres[0] >= 1
        for step in self._steps:
            if step.type == "scale" and step.scale:
                metres = [own * factor for own, factor in zip(metres, step.scale[-2:], strict=True)]
        side = math.sqrt(metres[0] * metres[1]) if min(metres) > 0 else math.nan
        value, unit = (side, "m") if is_large else (side * 1e6, "um")
        return Resolution(value, unit) if math.isfinite(value) and value > 0 else None


def image_of(attributes: Mapping[str, Any]) -> tuple[Multiscale, Georeference, bool]:
    """(image, georeference, whether its channels are shown as red, green and blue as far as is said) of a group's
    attributes. ValueError, in one line, where they are broken."""
    try:
        ome = attributes.get("ome", attributes)
        image = Multiscale.model_validate(ome["multiscales"][0])
        place = Georeference.model_validate(attributes.get("ssl_tilegen") or {})
        omero = _Omero.model_validate(ome.get("omero") or {})
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'its attributes'}: {first['msg']}") from None
    except (KeyError, IndexError, TypeError, AttributeError):
        raise ValueError("its attributes name no image") from None
    colours = [channel.color.upper() for channel in omero.channels]
    return image, place, colours in ([], ["FF0000", "00FF00", "0000FF"])
