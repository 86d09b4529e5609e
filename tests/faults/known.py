"""Faults that are known and not mended yet: the case's name -> the item of issue 14 that it falls under.

Whoever mends one removes its line: a case in this table that holds is a failure of the test.
"""

KNOWN: dict[str, str] = {
    "huge-grid-declared": "issue 14.3: cells of a grid that declares more than it holds are read without a budget",
    "huge-evaluate-fine": "issue 14.3: evaluate far finer than its images has no budget of windows",
}
