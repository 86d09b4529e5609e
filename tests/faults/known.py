"""Faults that are known and not mended yet: the case's name -> the item of issue 14 that it falls under.

Whoever mends one removes its line: a case in this table that holds is a failure of the test.
"""

KNOWN: dict[str, str] = {}
