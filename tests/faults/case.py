"""A case of the campaign: a command, the files before it, and what may come of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.faults.inject import Fault
from tests.faults.pieces import Piece

DONE, MENDABLE, USAGE, SOME, STOPPED = 0, 1, 2, 3, 143
REFUSED = frozenset({MENDABLE, USAGE})


@dataclass(frozen=True)
class Case:
    """``command`` is run in a folder that holds ``before``; "{world}" in a word is the folder of good files.

    ``allowed``: its exit codes. ``ours``: patterns of what was there before and may be changed or removed; all else
    must stay to the byte. ``leaves``: patterns of unfinished work that may stay where the command fails; a success
    leaves none. ``says`` and ``never`` are regular expressions for stderr. ``beside``: a second command that runs at
    the same time, or ("WAITS") at a step of the first; ``meanwhile`` is what a user does then. ``fault`` strikes at
    the share ``at`` of the steps of its kind. ``again``: the command is run a second time without the fault and must
    succeed, and leave nothing unfinished. ``first`` are commands that are run before, whatever comes of them, and
    ``then`` is put there after them. The files ``whole`` are all there or none of them; no new table has a match of
    ``lacks``.
    """

    kind: str
    name: str
    command: tuple[str, ...]
    before: tuple[Piece, ...] = ()
    allowed: frozenset[int] = REFUSED
    first: tuple[tuple[str, ...], ...] = ()
    then: tuple[Piece, ...] = ()
    ours: tuple[str, ...] = ()
    leaves: tuple[str, ...] = ()
    says: str = ""
    never: str = ""
    beside: tuple[str, ...] = ()
    meanwhile: tuple[Piece, ...] = ()
    fault: Fault | None = None
    at: float = 0.0
    again: bool = False
    stdout: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    cpu_s: int = 30
    signal_s: float | None = None
    disk_kib: int | None = None
    file_bytes: int | None = None
    memory_mib: int = 6144
    whole: tuple[str, ...] = ()
    lacks: str = ""
    long: bool = False
    lines: int = 4

    @property
    def id(self) -> str:
        return f"{self.kind}-{self.name}"


def words(line: str) -> tuple[str, ...]:
    """A command as one reads it; for names with blanks write the tuple."""
    return tuple(line.split())
