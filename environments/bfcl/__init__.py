"""BFCL v4 multi-turn: stateful APIs, a user who asks several times, and the official checkers."""

from tutelage.environments.bfcl.environment import Bfcl, BfclSingle

__all__ = ["Bfcl", "BfclSingle"]
