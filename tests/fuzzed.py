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
    (serving.folder / "openapi.json").write_text(json.dumps(reaching_the_student(document)))
    options = ["--max-examples", str(examples), "--workers", "1", "--checks", "all"]
    # What fits together is no matter of schemas.
    options += ["--exclude-checks", "positive_data_acceptance"]
    options += [] if full_counts else ["--phases", "fuzzing", "--seed", "7"]
    command = [str(Path(sys.executable).parent / "schemathesis"), "run", "openapi.json", "--url", serving.url, *options]
    done = subprocess.run(command, cwd=serving.folder, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
    assert "passed" in done.stdout


def reaching_the_student(document: dict[str, Any]) -> dict[str, Any]:
    """The document such that requests for a reply name the student, and once more such that they also fit together: by
    chance nearly none does, and what is behind the refusals would see nothing."""
    schemas, paths = document["components"]["schemas"], document["paths"]
    asked = schemas["ChatRequest"]
    asked["properties"]["model"] = {"const": "student"}
    said = {
        "type": "object",
        "properties": {"role": {"const": "user"}, "content": {"type": "string"}},
        "required": ["role", "content"],
        "additionalProperties": False,
    }
    fitting = {name: schema for name, schema in asked["properties"].items() if name not in TOGETHER}
    fitting |= {
        "messages": {"type": "array", "items": said, "minItems": 1, "maxItems": 3},
        "max_tokens": {"type": "integer", "minimum": 1, "maximum": 8},
    }
    schemas["Fitting"] = {**asked, "properties": fitting}
    again = json.loads(json.dumps(paths["/v1/chat/completions"]).replace("/ChatRequest", "/Fitting"))
    again["post"]["operationId"] = "again"
    again["post"]["parameters"] = [{"name": "chat", "in": "path", "required": True, "schema": {"const": "chat"}}]
    paths["/v1/{chat}/completions"] = again  # the same path by another name
    return document
