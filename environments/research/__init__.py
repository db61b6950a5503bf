"""Research: multi-hop questions over a synthetic encyclopedia, with search and model-written Python."""

from tutelage.environments.research.env import Research

__all__ = ["Research"]
