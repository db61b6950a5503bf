"""Tutelage: distil a teacher agent's experience into a small local student."""

__version__ = "0.1.0"
