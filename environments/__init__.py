"""Sandboxes an agent acts in: Gymnasium environments with text observations and text actions."""

from tutelage.environments.base import ActionRefused, Environment, Outcome, TargetError, environment_class

__all__ = ["ActionRefused", "Environment", "Outcome", "TargetError", "environment_class"]
