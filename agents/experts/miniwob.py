"""The expert for MiniWoB."""

from tutelage.agents.experts import (
    miniwob_clicks,
    miniwob_dates,
    miniwob_forms,
    miniwob_mail,
    miniwob_reading,
    miniwob_search,
)
from tutelage.agents.experts.miniwob_rules import MINIWOB

THEMES = (miniwob_clicks, miniwob_dates, miniwob_forms, miniwob_mail, miniwob_reading, miniwob_search)
"""The modules whose rules make up the expert."""

COVERED = tuple(sorted(MINIWOB.families))
"""Families it claims to solve."""

advise = MINIWOB.advise
