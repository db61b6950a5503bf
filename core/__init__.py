"""Tutelage: distil a teacher agent's experience into a small local student."""

import os

__version__ = "0.1.0"

# Nothing phones home: LiteLLM would fetch its price map from the network when it is imported.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
