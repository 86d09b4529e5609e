"""A signal ends every command: at its next step, else by an exception, else at once; never later than five seconds."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from ssl_tilegen.system import signals

GRACE_S = 0.4  # instead of seconds
STEPS = "while True:\n    time.sleep(0.05)\n    check_stop()\n"
NEVER_ASKS = "while True:\n    sum(range(10_000))\n"
SLEEPS = "time.sleep(600)\n"
LIBRARY = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 1 << 30)\n"  # one call, of minutes


def started(body: str, grace_s: float = GRACE_S) -> subprocess.Popen[str]:
    code = (
        "import sys, time\nfrom ssl_tilegen.errors import Interrupted\n"
        f"import ssl_tilegen.system.signals as own\nown.GRACE_S, own.LAST_S = {grace_s}, {2 * grace_s}\n"
        "from ssl_tilegen.system.signals import *\nfrom ssl_tilegen.system.signals import catching_signals\n"
        "try:\n    with catching_signals():\n        print('ready', flush=True)\n"
        + "".join(f"        {line}\n" for line in body.splitlines())
        + "except Interrupted as error:\n    print(error, file=sys.stderr)\n    raise SystemExit(error.exit_code)\n"
    )
    job = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert job.stdout and job.stdout.readline() == "ready\n"
    return job


@pytest.mark.parametrize(
    ("body", "number", "code"),
    [
        (STEPS, signal.SIGTERM, 143), (STEPS, signal.SIGINT, 130), (STEPS, signal.SIGUSR1, 143),
        (NEVER_ASKS, signal.SIGTERM, 143), (SLEEPS, signal.SIGINT, 130), (LIBRARY, signal.SIGUSR1, 143),
    ],
)  # fmt: skip
def test_a_signal_ends_it(body: str, number: int, code: int) -> None:
    job = started(body)
    job.send_signal(number)
    _, errors = job.communicate(timeout=60)
    assert job.returncode == code and "interrupted by" in errors and len(errors.splitlines()) == 1


def test_a_process_has_some_seconds_and_never_more_than_five() -> None:
    assert 1 < signals.GRACE_S < signals.LAST_S <= 5


def test_what_is_being_finished_has_its_time() -> None:
    job = started("with finishing(600):\n    time.sleep(2)\n    print('finished', flush=True)\ncheck_stop()\n")
    job.send_signal(signal.SIGTERM)
    out, _ = job.communicate(timeout=60)
    assert job.returncode == 143 and out == "finished\n"


def test_a_second_signal_kills() -> None:
    job = started("while not stop_requested(): time.sleep(0.01)\nprint('heard', flush=True)\ntime.sleep(600)\n", 60)
    job.send_signal(signal.SIGTERM)
    assert job.stdout and job.stdout.readline() == "heard\n"
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=30) == -signal.SIGTERM
