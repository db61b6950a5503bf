"""Experts for the mail client: delete, star, reply, forward, asked for in many wordings."""

from tutelage.agents.experts.miniwob_rules import MINIWOB

expert = MINIWOB.expert
