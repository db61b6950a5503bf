"""The student behind an OpenAI-compatible server: token ids go in, sampled ids and their log-probabilities come out.

What is asked for is `/v1/completions` with a prompt of token ids and ``return_token_ids``: vLLM has that from
0.10.2 on, SGLang since July 2026; `transformers serve` takes neither. Chat endpoints are of no use here, as they
render and tokenise the conversation themselves. A server has weights of its own, so it can be measured and can
collect, but nothing that is being trained can be sampled from it.
"""

import os
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Unpack

import httpx
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter
from transformers import PreTrainedTokenizerBase

from tutelage.errors import ConfigError, PolicyFailed
from tutelage.training.token_policy import SEEDS, Asked, Sampled, Settings, TokenPolicy

KEY = "TUTELAGE_SERVER_KEY"
"""Environment variable with the server's key, if it wants one; no provider's key is ever sent to it."""
CONCURRENCY = 64
"""Requests under way at once; the server batches them."""
TRANSIENT = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""Statuses after which another attempt may succeed."""
PROBE = "  Click [r1] “Überraschung”\n\n\tdef f(x): 12345 日本 don't"
"""Its tokens differ between tokenizers: spaces, marks, digits, letters beyond ASCII."""
OPEN_ENDED = "The"
"""A text that goes on in many ways, so that temperature makes a difference to the next token's probability."""


class ServerPolicy(TokenPolicy):
    """Samples from a server; a request that fails for good is an error reply, not an exception.

    With a temperature, a seed gives the same reply as far as the server keeps to it (vLLM does, unless its batches
    change the last digits), and never the reply that `StudentPolicy` gives: the generators differ.

    Args:
        url: of the server, with or without ``/v1``.
        names: what the server may call this student's weights, the first one being what to serve them as.
        timeout: seconds for one attempt.
        retries: attempts after the first, on timeouts, lost connections and busy servers.
        backoff: seconds before the first retry; doubles each time, with jitter.

    Raises:
        ConfigError: nothing answers there; it serves other weights, has another tokenizer, gives no token ids or no
            log-probabilities, or not those of the temperature that it samples at.
    """

    def __init__(
        self,
        url: str,
        tokenizer: PreTrainedTokenizerBase,
        *,
        names: Collection[str],
        timeout: float = 120.0,
        retries: int = 4,
        backoff: float = 1.0,
        **settings: Unpack[Settings],
    ) -> None:
        super().__init__(tokenizer, **settings)
        self.url = url.rstrip("/").removesuffix("/v1")
        self.retries, self.backoff = retries, backoff
        key = os.environ.get(KEY)
        limits = httpx.Limits(max_connections=CONCURRENCY, max_keepalive_connections=CONCURRENCY)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(base_url=self.url, timeout=timeout, headers=headers, limits=limits)
        try:
            self._model = self._find(names)
            self._check_tokens(tokenizer)
            self._check_temperature()
        except PolicyFailed as error:
            raise ConfigError(f"student.server: {error}") from error

    def sample(self, asked: Sequence[Asked]) -> list[Sampled]:
        """Raises:
        ConfigError: the server does not do what it did at the start: other prompt, no ids, no log-probabilities.
        """
        with ThreadPoolExecutor(min(CONCURRENCY, len(asked))) as pool:
            return list(pool.map(self._sample, asked))

    def _sample(self, asked: Asked) -> Sampled:
        try:
            choice = self._complete(
                list(asked.ids),
                max_tokens=self.max_new_tokens,
                temperature=self.temperature,
                seed=asked.seed % SEEDS,
                stop_token_ids=[self.encoder.end],
            )
        except PolicyFailed as error:
            return Sampled(error=str(error))
        return read(choice, asked.ids, self.encoder.end, self.encoder.tokenizer.all_special_ids)

    def _find(self, names: Collection[str]) -> str:
        """What the server calls the student's weights: by their name, or by the folder that it read them from."""
        served = self._send("GET", "/v1/models").get("data") or []
        found = [model["id"] for model in served if {model.get("id"), model.get("root")} & set(names)]
        if not found:
            first, *_ = names
            there = ", ".join(str(model.get("id")) for model in served) or "nothing"
            raise ConfigError(
                f"student.server: {self.url} serves {there}, not {first}; serve its weights under that name "
                f"(vLLM: --served-model-name {first})"
            )
        return str(found[0])

    def _check_tokens(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Compare how a text is tokenised there and here, the token that ends a turn included."""
        text = PROBE + str(tokenizer.convert_ids_to_tokens(self.encoder.end))
        choice = self._complete(text, max_tokens=1, temperature=0.0, add_special_tokens=False)
        theirs, ours = choice.get("prompt_token_ids"), tokenizer.encode(text, add_special_tokens=False)
        if theirs is None:
            raise ConfigError(f"student.server: {_NO_IDS.format(self.url)}")
        if list(theirs) != ours:
            raise ConfigError(
                f"student.server: {self.url} has another tokenizer than the student: {_differ(theirs, ours)}"
            )
        read(choice, ours, self.encoder.end, tokenizer.all_special_ids)

    def _check_temperature(self) -> None:
        """Refuse log-probabilities that do not heed the temperature; vLLM gives those unless told otherwise."""
        if self.temperature in (0.0, 1.0):
            return
        ids, highest = self.encoder.tokenizer.encode(OPEN_ENDED, add_special_tokens=False), []
        for temperature in (1.0, 0.5):
            choice = self._complete(ids, max_tokens=1, temperature=temperature, seed=0)
            top = ((choice.get("logprobs") or {}).get("top_logprobs") or [None])[0]
            if not top:
                raise ConfigError(
                    f"student.server: {self.url} gives no top_logprobs, which tell whether it heeds the temperature; "
                    "use one that does (vLLM, SGLang), or set the temperature to 0 or 1"
                )
            highest.append(max(top.values()))
        if abs(highest[0] - highest[1]) < 1e-2:
            raise ConfigError(
                f"student.server: {self.url} gives log-probabilities from before the temperature; start it so that it "
                "gives those it samples by (vLLM: --logprobs-mode processed_logprobs), or set the temperature to 0 or 1"
            )

    def _complete(self, prompt: str | list[int], **options: Any) -> dict[str, Any]:
        """The one choice of a completion.

        Raises:
            PolicyFailed: the server could not answer after all retries, or refused.
        """
        body = {"model": self._model, "prompt": prompt, "n": 1, "logprobs": 1, "return_token_ids": True, **options}
        # A server may take defaults from the model's own generation settings; these are StudentPolicy's.
        neutral = {"top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
        answer = self._send("POST", "/v1/completions", json=neutral | body)
        try:
            return dict(answer["choices"][0])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise PolicyFailed(f"{self.url} answered with something that is no completion") from error

    def _send(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        attempts = Retrying(
            stop=stop_after_attempt(1 + self.retries),
            wait=wait_exponential_jitter(initial=self.backoff, max=60.0, jitter=self.backoff),
            retry=retry_if_exception(_transient),
            reraise=True,
        )
        try:
            response = attempts(self._attempt, method, path, **content)
            answer = response.json()
        except httpx.HTTPStatusError as error:
            said = " ".join(error.response.text.split())[:300]
            raise PolicyFailed(f"{self.url}{path} answered {error.response.status_code}: {said}") from error
        except httpx.HTTPError as error:
            raise PolicyFailed(f"nothing answers at {self.url}{path}: {error or type(error).__name__}") from error
        except ValueError as error:
            raise PolicyFailed(f"{self.url}{path} does not answer in JSON") from error
        if not isinstance(answer, dict):
            raise PolicyFailed(f"{self.url}{path} answered with something else than an object")
        return answer

    def _attempt(self, method: str, path: str, **content: Any) -> httpx.Response:
        return self._client.request(method, path, **content).raise_for_status()


_NO_IDS = (
    "{} gives no token ids, so its replies cannot be kept token for token; a server that does: vLLM 0.10.2 or later, "
    "a recent SGLang"
)


def read(choice: dict[str, Any], prompt: Sequence[int], end: int, specials: Collection[int]) -> Sampled:
    """The tokens of one completion, cut behind the end of turn.

    Args:
        prompt: the ids that were sent.
        end: the token that ends a turn.
        specials: tokens that a model may stop at instead.

    Raises:
        ConfigError: the server read another prompt, or does not tell ids and log-probabilities of all it sampled.
    """
    ids, read_as = choice.get("token_ids"), choice.get("prompt_token_ids")
    if ids is None or read_as is None:
        raise ConfigError(f"student.server: {_NO_IDS.format('the server')}")
    if list(read_as) != list(prompt):
        raise ConfigError(f"student.server: the server changes the prompt: {_differ(read_as, prompt)}")
    logprobs = (choice.get("logprobs") or {}).get("token_logprobs")
    if logprobs is None or len(logprobs) != len(ids) or None in logprobs:
        raise ConfigError(
            "student.server: the server gives no log-probability for each token that it samples; "
            "use one that does (vLLM, SGLang)"
        )
    if choice.get("finish_reason") == "stop" and (not ids or ids[-1] not in {end, *specials}):
        raise ConfigError(
            "student.server: the server leaves out the token that ended a reply; use one that gives it (vLLM, SGLang)"
        )
    kept = ids.index(end) + 1 if end in ids else len(ids)
    return Sampled(tuple(ids[:kept]), tuple(float(value) for value in logprobs[:kept]))


def _differ(theirs: Sequence[int], ours: Sequence[int]) -> str:
    """Where two lists of ids part."""
    pairs = enumerate(zip(theirs, ours, strict=False))
    place = next((place for place, (one, other) in pairs if one != other), min(len(theirs), len(ours)))
    return f"{len(theirs)} tokens for our {len(ours)}, the first difference at token {place}"


def _transient(error: BaseException) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in TRANSIENT
    return isinstance(error, httpx.TransportError)
