"""The campaign: nothing of a user's is destroyed, nothing hangs, every failure is one line. See `cases`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.campaign import Campaign
from tests.faults.case import Case
from tests.faults.cases import all_cases
from tests.faults.known import KNOWN

CASES = all_cases()


def _marked(case: Case) -> object:
    reason = KNOWN.get(case.id)
    return pytest.param(case, id=case.id, marks=[pytest.mark.xfail(strict=True, reason=reason)] if reason else [])


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    with Campaign(tmp_path_factory.mktemp("faults")).running() as running:
        yield running


@pytest.mark.parametrize("case", [_marked(case) for case in CASES])
def test_case(case: Case, campaign: Campaign) -> None:
    found = campaign.faults_of(case)
    assert not found, "\n".join([" ".join(case.command), *found])


def test_the_table_is_large_and_its_names_differ() -> None:
    names = [case.id for case in CASES]
    assert len(names) == len(set(names))
    assert len(names) >= 400
    assert set(KNOWN) <= set(names), "a known fault of a case that is not there"
