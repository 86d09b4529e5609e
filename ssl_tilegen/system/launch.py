"""Who this process is among those started with it, by a Slurm array, srun or torchrun, and how they meet. No torch at
import."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_tilegen.errors import SettingError, TilegenError
from ssl_tilegen.system.boundary import first_line
from ssl_tilegen.system.signals import check_stop

if TYPE_CHECKING:
    import torch

_MEETING, _LONGEST_WAIT = timedelta(minutes=10), timedelta(days=2)
_GROUPS = count()  # that this process has joined


def worker_shard(*, array: bool = True) -> tuple[int, int]:
    """(index, count) of this process among its like, from a Slurm array (unless not ``array``) or a launcher's
    variables; else (0, 1).

    SettingError for an array of which this cannot be told (a list such as 3,7,8: some work would be done twice, some
    never), and for a number beyond the count.
    """
    task = {name: _number(f"SLURM_ARRAY_TASK_{name}") for name in ("ID", "COUNT", "MIN", "MAX", "STEP")}
    own, count = task["ID"], task["COUNT"]
    if array and own is not None and count:
        first, step = task["MIN"] or 0, task["STEP"] or 1
        last = task["MAX"] if task["MAX"] is not None else first + step * (count - 1)
        if (last - first) // step + 1 != count:
            raise SettingError(f"Slurm array of {count} tasks from {first} to {last}: it has gaps, so shares cannot be "
                               "told; use one without, or give --shard I/N")  # fmt: skip
        if not 0 <= own - first < step * count:
            raise SettingError(f"SLURM_ARRAY_TASK_ID {own}: is none of an array from {first} to {last}; unset the "
                               "variables of the array, or give --shard I/N")  # fmt: skip
        return (own - first) // step, count
    who = _launched()
    return (who[0], who[1]) if who else (0, 1)


def check_restart(restart: bool, shard: tuple[int, int], out: Path) -> None:
    """SettingError where one of several processes that make ``out`` together is to start over: those that come later
    would throw away what those before have made."""
    if restart and shard[1] > 1:
        raise SettingError(f"--restart: {shard[1]} processes make {out} together, each would throw away what others "
                           f"made; delete {out}.part, then run them without --restart")  # fmt: skip


def _launched() -> tuple[int, int] | None:
    """(rank, count) by a launcher's variables; SettingError where the rank is beyond the count."""
    rank, total = _number("RANK"), _number("WORLD_SIZE")
    if rank is None or not total:
        return None
    if rank >= total:
        raise SettingError(f"RANK {rank}: is beyond WORLD_SIZE {total}; start all with torchrun or srun, or unset both")
    return rank, total


def _number(variable: str) -> int | None:
    """The value of an environment variable that is a count."""
    value = os.environ.get(variable, "")
    return int(value) if value.isdecimal() else None


@dataclass(frozen=True, slots=True)
class Distributed:
    """This process among those that were started together: ``rank`` of ``count``, the ``local_rank``-th of its host."""

    rank: int = 0
    local_rank: int = 0
    count: int = 1


def distributed_environment() -> Distributed:
    """Who this process is, from torchrun's variables, else from srun's; alone where there are neither.

    srun's are also set under torchrun's names, which torch and accelerate read: RANK, LOCAL_RANK, WORLD_SIZE, and as
    the meeting point MASTER_ADDR (the step's first host) and MASTER_PORT (from the job's number). What is set already
    is left as it is.
    """
    own = os.environ
    place, tasks = _number("SLURM_PROCID"), _number("SLURM_STEP_NUM_TASKS")  # SLURM_NTASKS is a job script's, too
    if "RANK" not in own and place is not None and tasks is not None and tasks > 1:
        hosts = own.get("SLURM_STEP_NODELIST") or own.get("SLURM_JOB_NODELIST") or own.get("SLURM_NODELIST", "")
        own["RANK"], own["WORLD_SIZE"] = str(place), str(tasks)
        own.setdefault("LOCAL_RANK", own.get("SLURM_LOCALID", "0"))
        own.setdefault("MASTER_ADDR", _first_host(hosts))
        own.setdefault("MASTER_PORT", str(20_000 + (_number("SLURM_JOB_ID") or 0) % 20_000))
    who = _launched()
    if who is None or who[1] < 2:
        return Distributed()
    local = _number("LOCAL_RANK")
    return Distributed(who[0], who[0] if local is None else local, who[1])


def _first_host(hosts: str) -> str:
    """The first name of a Slurm list such as ``node[003-010,12],other``; this machine for an empty one."""
    match = re.match(r"([^,\[]+)(?:\[([^\]\-,]+)[^\]]*\])?([^,\[]*)", hosts)
    return "".join(part or "" for part in match.groups()) if match else "127.0.0.1"


def lost_process(error: BaseException) -> TilegenError:
    """The one line for an ``error`` of torch.distributed that says that another process has ended."""
    reason = first_line(error)[:120]
    return TilegenError(f"another process of this run is gone ({reason}): the same command continues")


@cache
def _meeting_point(who: Distributed) -> Any:
    """The store by which processes find each other. It lasts as long as they do: of two, one after the other at the
    same port, a fast process could reach the first when it looks for the second."""
    from torch.distributed.rendezvous import rendezvous

    return next(iter(rendezvous("env://", who.rank, who.count, timeout=_MEETING)))[0]


@contextmanager
def process_group(who: Distributed, device: torch.device) -> Iterator[None]:
    """Join the processes started together, to talk by torch.distributed: gloo for memory, NCCL for cards.

    TilegenError where the others do not come; nothing to do for one that is alone.
    """
    if who.count == 1:
        yield
        return
    import torch
    import torch.distributed as dist

    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        store = dist.PrefixStore(f"group {next(_GROUPS)}", _meeting_point(who))  # type: ignore[attr-defined]
        kind = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(kind, store=store, rank=who.rank, world_size=who.count, timeout=_LONGEST_WAIT)
    except (RuntimeError, ValueError) as error:
        check_stop()
        raise TilegenError(
            f"process {who.rank} of {who.count}: the others did not come ({first_line(error)[:120]}); start "
            "all of them with torchrun or srun, or one alone without RANK and WORLD_SIZE"
        ) from error
    try:
        yield
    finally:
        dist.destroy_process_group()
