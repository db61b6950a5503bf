"""The expert for MiniWoB."""

from tutelage.agents.experts import (
    miniwob_forms,
)
from tutelage.agents.experts.miniwob_rules import MINIWOB

THEMES = (miniwob_forms,)
"""The modules whose rules make up the expert, in the order in which they are tried."""

COVERED = tuple(sorted(MINIWOB.families))
"""Families it claims to solve."""

advise = MINIWOB.advise
