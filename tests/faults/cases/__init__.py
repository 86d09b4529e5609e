"""All cases, by family: each module has a function ``cases`` that makes its own."""

from __future__ import annotations

import os

from tests.faults.case import Case
from tests.faults.cases import outputs

LONG = os.environ.get("SSL_TILEGEN_FAULTS") == "long"
FAMILIES = (outputs,)


def all_cases() -> list[Case]:
    """The cases of the default table, and the long ones where SSL_TILEGEN_FAULTS=long."""
    return [case for family in FAMILIES for case in family.cases() if LONG or not case.long]
