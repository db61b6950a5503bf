"""A server asked what its OpenAPI document allows, and what it does not."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

TOGETHER = ("stream_options", "max_completion_tokens", "tools", "tool_choice", "messages")
"""What of a chat request has to fit something else in it, which no schema says."""


def generated(serving: Any, full_counts: bool, examples: int) -> None:
    """Requests that fit the OpenAPI document, that do not, and chains of them.

    Args:
        serving: the endpoint, with a folder of its own.
        examples: for each path.
    """
    with serving.client() as client:
        document = client.get("/openapi.json").json()
    document["components"]["schemas"]["ChatRequest"]["properties"]["model"] = {"const": "student"}
    # What fits together is no matter of schemas, and 1.0 is a whole number to them but not here.
    options = ["--checks", "all", "--exclude-checks", "positive_data_acceptance"]
    options += [] if full_counts else ["--phases", "fuzzing", "--seed", "7"]
    _asked(serving, document, examples, *options)
    _asked(serving, fitting(document), examples, *options, "--mode", "positive")


def _asked(serving: Any, document: dict[str, Any], examples: int, *options: str) -> None:
    (serving.folder / "openapi.json").write_text(json.dumps(document))
    command = [str(Path(sys.executable).parent / "schemathesis"), "run", "openapi.json", "--url", serving.url]
    command += ["--max-examples", str(examples), "--workers", "1", *options]
    done = subprocess.run(command, cwd=serving.folder, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
    assert "passed" in done.stdout


def fitting(document: dict[str, Any]) -> dict[str, Any]:
    """The document for asking for replies only, such that what is asked fits together: by chance nearly nothing does,
    and what is behind the refusals would see nothing."""
    schemas, path = document["components"]["schemas"], "/v1/chat/completions"
    asked = schemas["ChatRequest"]
    said = {
        "type": "object",
        "properties": {"role": {"const": "user"}, "content": {"type": "string"}},
        "required": ["role", "content"],
        "additionalProperties": False,
    }
    properties = {name: schema for name, schema in asked["properties"].items() if name not in TOGETHER}
    properties |= {
        "messages": {"type": "array", "items": said, "minItems": 1, "maxItems": 3},
        "max_tokens": {"type": "integer", "minimum": 1, "maximum": 8},
    }
    components = {**document["components"], "schemas": {**schemas, "ChatRequest": {**asked, "properties": properties}}}
    return {**document, "components": components, "paths": {path: document["paths"][path]}}
