"""A completions server over real HTTP with a real model behind it, in this process, on loopback alone.

It answers as vLLM does to `/v1/models` and `/v1/completions`, by transformers' own unbatched generation, and has
faults to switch on. `transformers serve` (`serving.py`) would not do: it neither takes nor gives token ids.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from typing import Any

import torch


@dataclass
class TokenServer:
    """What is served, and what goes wrong."""

    model: Any
    tokenizer: Any
    name: str = "student@0"
    url: str = ""
    faults: set[str] = field(default_factory=set)
    """Of: no ids, no logprobs, no top logprobs, raw logprobs, another prompt, hidden end, busy, down, hung, no json."""
    busy: int = 0
    """Requests that are still refused with 503 if `faults` has ``busy``."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    released: Event = field(default_factory=Event)
    lock: Lock = field(default_factory=Lock)

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """A completion in OpenAI's format with vLLM's ids."""
        prompt = body["prompt"]
        if isinstance(prompt, str):
            prompt = self.tokenizer.encode(prompt, add_special_tokens=body.get("add_special_tokens", True))
        if "another prompt" in self.faults:
            prompt = [self.tokenizer.bos_token_id, *prompt]
        ends = {self.tokenizer.eos_token_id, *body.get("stop_token_ids", ())}
        sampled, logprobs, top = self._generate(prompt, body, ends)
        choice: dict[str, Any] = {
            "index": 0,
            "text": self.tokenizer.decode(sampled, skip_special_tokens=True),
            "finish_reason": "stop" if sampled[-1] in ends else "length",
            "prompt_token_ids": prompt,
            "token_ids": sampled,
            "logprobs": {"token_logprobs": logprobs, "top_logprobs": top},
        }
        if "hidden end" in self.faults and choice["finish_reason"] == "stop":
            choice["token_ids"], choice["logprobs"]["token_logprobs"] = sampled[:-1], logprobs[:-1]
        if "no ids" in self.faults:
            del choice["token_ids"], choice["prompt_token_ids"]
        if "no top logprobs" in self.faults:
            del choice["logprobs"]["top_logprobs"]
        if "no logprobs" in self.faults:
            choice["logprobs"] = None
        return {"object": "text_completion", "model": self.name, "choices": [choice]}

    def _generate(
        self, prompt: list[int], body: dict[str, Any], ends: set[int]
    ) -> tuple[list[int], list[float], list[dict[str, float]]]:
        temperature = body.get("temperature", 1.0)
        with self.lock, torch.random.fork_rng():
            torch.manual_seed(body.get("seed", 0))
            made = self.model.generate(
                torch.tensor([prompt]),
                max_new_tokens=body["max_tokens"],
                do_sample=temperature > 0,
                **({"temperature": temperature, "top_k": 0} if temperature else {}),
                eos_token_id=sorted(ends),
                output_logits=True,
                return_dict_in_generate=True,
            )
        heeded = 1.0 if "raw logprobs" in self.faults or not temperature else temperature
        scores = torch.log_softmax(torch.cat(made.logits) / heeded, dim=-1)
        sampled = made.sequences[0, len(prompt) :]
        logprobs = scores.gather(-1, sampled[:, None]).squeeze(-1).tolist()
        best = [{f"token_id:{int(row.argmax())}": float(row.max())} for row in scores]
        return sampled.tolist(), logprobs, best


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: TokenServer

    def do_GET(self) -> None:
        self._answer(200, {"data": [{"id": self.served.name, "root": f"/weights/{self.served.name}"}]})

    def do_POST(self) -> None:
        served, body = self.served, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        served.requests.append(body)
        if "busy" in served.faults and served.busy > 0:
            served.busy -= 1
            self._answer(503, {"error": "busy"})
        elif "down" in served.faults:
            self._answer(400, {"error": {"message": "this model's maximum context length is 64 tokens"}})
        elif "hung" in served.faults:
            served.released.wait()
        elif "no json" in served.faults:
            self._answer(200, None)
        else:
            self._answer(200, served.complete(body))

    def _answer(self, status: int, body: dict[str, Any] | None) -> None:
        content = b"<html>" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def token_server(model: Any, tokenizer: Any, name: str = "student@0") -> Iterator[TokenServer]:
    """Serve until the block ends."""
    served = TokenServer(model, tokenizer, name)
    handler = type("Handler", (_Handler,), {"served": served})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    served.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        served.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
