"""Tutelage: distil a teacher agent's experience into a small local student."""

import os

__version__ = "0.1.0"

# Nothing phones home. These libraries read their settings when they are first imported, whoever imports them: LiteLLM
# would then fetch its lists of prices and headers, and the hub's library would report each training run.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
os.environ.setdefault("LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS", "True")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
