"""MiniWoB++ pages in Chromium, as a text environment."""

from tutelage.environments.miniwob.catalogue import official_split
from tutelage.environments.miniwob.env import MiniWoB

__all__ = ["MiniWoB", "official_split"]
