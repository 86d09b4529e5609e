"""Faults that are known and not mended yet: the case's name -> the item of issue 14 that it falls under."""

KNOWN: dict[str, str] = {}
