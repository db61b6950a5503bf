"""Serving: the promoted student behind an OpenAI-compatible endpoint, and what is learned from its use."""
