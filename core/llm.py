"""Every call to a language model: LiteLLM with retries, structured output, accounting and a hard budget.

LiteLLM is imported when the first model is made. Models of an embedded provider (`PROVIDERS`) are
answered in this process, through the very same path.
"""

import json
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from tutelage.config import BudgetConfig
from tutelage.errors import PolicyFailed, TutelageError
from tutelage.registry import resolve
from tutelage.types import Message
from tutelage.usage import Usage, UsageLog

T = TypeVar("T")
Asked = TypeVar("Asked")
Schema = TypeVar("Schema", bound=BaseModel)

PROVIDERS = {"expert": "tutelage.agents.provider:register"}
"""Embedded providers: prefix of the model string → dotted path of what makes LiteLLM know it, given the rest."""

REPAIRS = 2
"""How often a structured answer that does not fit is sent back with the error."""
NO_TOOLS = ' (the request offered tools; if this model or its server takes none, set teacher.tools = "text")'
LONGEST_WAIT = 60.0
"""Seconds between two attempts at most, whatever the provider asks for."""

_FENCE = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL)
_SECRET = re.compile(r"(?i)\b(?:sk|pk|key|gsk|xai|hf)[-_][\w\-*.]{6,}|\bbearer\s+\S+|AIza[\w-]{20,}")
_SECRET_NAME = re.compile(r"(?i)(key|token|secret|password)$")


@dataclass(frozen=True)
class Request:
    """One call as it goes to the provider, in OpenAI's format."""

    messages: Sequence[dict[str, Any]]
    tools: Sequence[dict[str, Any]] = ()


@dataclass(frozen=True)
class Answer:
    """What a provider answered."""

    text: str
    calls: tuple[tuple[str, str], ...] = ()
    """Name and arguments (JSON text) of every tool call, as the provider gave them."""


class LLM:
    """One model in one role."""

    def __init__(
        self,
        model: str,
        *,
        role: str,
        usage: UsageLog | None = None,
        budget: BudgetConfig | None = None,
        temperature: float = 1.0,
        max_tokens: int = 512,
        concurrency: int = 8,
        retries: int = 4,
        backoff: float = 1.0,
        timeout: float = 120.0,
    ) -> None:
        """
        Args:
            model: LiteLLM model string; ``expert/NAME`` is the embedded scripted expert.
            role: what its usage is counted under, e.g. ``teacher``, ``judge``.
            usage: shared by all models that share a budget.
            concurrency: calls under way at once in `answer_many`.
            retries: attempts after the first on rate limits, server errors, timeouts and lost connections.
            backoff: seconds before the first retry; doubles each time, with jitter.
            timeout: seconds per attempt.

        Raises:
            UnknownName: an embedded provider has no such model.
        """
        self.model = model
        self.role = role
        self.usage = usage or UsageLog()
        self.budget = budget or BudgetConfig()
        self.concurrency = concurrency
        self.retries = retries
        self.backoff = backoff
        self._options = {"temperature": temperature, "max_tokens": max_tokens, "timeout": timeout}
        self._litellm = _litellm()
        prefix, _, name = model.partition("/")
        self._embedded = prefix in PROVIDERS
        if self._embedded:
            resolve(prefix, PROVIDERS, what="provider")(name)

    @property
    def label(self) -> str:
        """What to call it wherever results are shown; the embedded expert says that it is scripted."""
        return f"{self.model} (scripted)" if self._embedded else self.model

    @property
    def embedded(self) -> bool:
        """Whether it answers in this process, from plain text."""
        return self._embedded

    def complete(self, messages: Sequence[Message]) -> str:
        """The model's answer to one conversation.

        Raises:
            PolicyFailed: no answer after all retries; one line, without secrets.
            BudgetSpent: before a call that the budget does not allow.
        """
        return self._saved(lambda: self._answer(messages))

    def answer_many(self, requests: Sequence[Request]) -> list[Answer | TutelageError]:
        """Answers in order; a call that failed, or that the budget forbade, is its error in the list."""
        return self._saved(lambda: self._many(self._ask, requests))

    def structured(self, messages: Sequence[Message], schema: type[Schema]) -> Schema:
        """The answer as a validated `schema`; one that does not fit goes back with the error, at most twice.

        Raises:
            PolicyFailed: no answer, or none that fits.
            BudgetSpent: before a call that the budget does not allow.
        """
        return self._saved(lambda: self._fitting(messages, schema))

    def structured_many(
        self, conversations: Sequence[Sequence[Message]], schema: type[Schema]
    ) -> list[Schema | TutelageError]:
        """Validated answers in order; a failed one is its error in the list."""
        return self._saved(lambda: self._many(lambda messages: self._fitting(messages, schema), conversations))

    def _saved(self, call: Callable[[], T]) -> T:
        try:
            return call()
        finally:
            self.usage.save(self.role)

    def _many(self, call: Callable[[Asked], T], asked: Sequence[Asked]) -> list[T | TutelageError]:
        def attempt(one: Asked) -> T | TutelageError:
            try:
                return call(one)
            except TutelageError as error:
                return error

        if len(asked) < 2 or self.concurrency == 1 or self._embedded:  # embedded: no waiting to overlap
            return [attempt(one) for one in asked]
        with ThreadPoolExecutor(min(self.concurrency, len(asked))) as pool:
            return list(pool.map(attempt, asked))

    def _fitting(self, messages: Sequence[Message], schema: type[Schema]) -> Schema:
        asked = _with_schema(messages, schema)
        for _ in range(1 + REPAIRS):
            answer = self._answer(asked)
            try:
                return schema.model_validate_json(_unfenced(answer))
            except ValidationError as error:
                problem = _problem(error)
            asked += [
                Message(role="assistant", content=answer),
                Message(role="user", content=f"That does not fit the schema: {problem}. Answer with the JSON only."),
            ]
        raise PolicyFailed(f"{self.model}: no answer fits {schema.__name__} after {REPAIRS} repairs: {problem}")

    def _answer(self, messages: Sequence[Message]) -> str:
        return self._ask(Request([message.model_dump() for message in messages])).text

    def _ask(self, request: Request) -> Answer:
        from openai import OpenAIError
        from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

        backoff = wait_exponential_jitter(initial=self.backoff, max=LONGEST_WAIT, jitter=self.backoff)
        retrying = Retrying(
            stop=stop_after_attempt(1 + self.retries),
            wait=lambda state: max(backoff(state), _asked_to_wait(state.outcome)),
            retry=retry_if_exception(self._transient),
            reraise=True,
        )
        try:
            return retrying(self._attempt, request)
        except OpenAIError as error:  # the root of all of LiteLLM's provider errors
            raise self._failure(error, request) from None

    def _attempt(self, request: Request) -> Answer:
        self.usage.reserve(self.role, self.budget)
        response = self._litellm.completion(
            model=self.model,
            messages=list(request.messages),
            max_retries=0,  # of the provider's own client; retries are counted and paced here
            **self._options,
            **self._with_tools(request),
        )
        self.usage.add(self.role, self._cost(response))
        if not response.choices:
            raise PolicyFailed(f"{self.model}: the provider's answer holds no message")
        message = response.choices[0].message
        return Answer(message.content or "", _calls(message) if request.tools else ())

    def _with_tools(self, request: Request) -> dict[str, Any]:
        """The tools, and that one call at a time is wanted, where the provider lets us say so."""
        if not request.tools:
            return {}
        accepted = self._litellm.get_supported_openai_params(model=self.model) or ()
        one = {"parallel_tool_calls": False} if "parallel_tool_calls" in accepted else {}
        return {"tools": list(request.tools), **one}

    def _cost(self, response: Any) -> Usage:
        used = getattr(response, "usage", None)
        dollars: float | None = 0.0
        if not self._embedded:
            try:
                dollars = self._litellm.completion_cost(response, model=self.model)
            except Exception:  # what LiteLLM raises for a model without a known price differs by version
                dollars = None
        return Usage(
            prompt_tokens=getattr(used, "prompt_tokens", 0) or 0,
            completion_tokens=getattr(used, "completion_tokens", 0) or 0,
            dollars=dollars or 0.0,
            unpriced=int(dollars is None),
        )

    def _transient(self, error: BaseException) -> bool:
        kinds = self._litellm.exceptions
        return not self._embedded and isinstance(
            error,
            kinds.RateLimitError
            | kinds.Timeout
            | kinds.InternalServerError
            | kinds.ServiceUnavailableError
            | kinds.BadGatewayError
            | kinds.APIConnectionError,
        )

    def _failure(self, error: Exception, request: Request) -> Exception:
        """What to raise: an embedded provider's own error if it is a bug, else one clear line."""
        original = error.__context__ if self._embedded else None
        if isinstance(original, Exception) and not isinstance(original, TutelageError):
            return original
        line = _clean(str(original or error))
        hint = NO_TOOLS if request.tools and self._may_be_about_tools(error) else ""
        return PolicyFailed(f"{self.model}: {line}{hint}")

    def _may_be_about_tools(self, error: Exception) -> bool:
        """Servers refuse tools with all kinds of codes and texts."""
        kinds = self._litellm.exceptions
        if isinstance(error, kinds.ContextWindowExceededError | kinds.ContentPolicyViolationError):
            return False
        bad = isinstance(error, kinds.BadRequestError | kinds.UnprocessableEntityError)
        return bad or "tool" in str(error).lower()


@cache
def _litellm() -> ModuleType:
    """LiteLLM, without its remote price map, telemetry and banners."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm

    litellm.telemetry = False
    litellm.suppress_debug_info = True
    return litellm


def _calls(message: Any) -> tuple[tuple[str, str], ...]:
    """Names and arguments of a message's tool calls; some servers give the arguments as an object."""
    found = []
    for call in getattr(message, "tool_calls", None) or ():
        name, arguments = call.function.name or "", call.function.arguments or ""
        found.append((name, arguments if isinstance(arguments, str) else json.dumps(arguments)))
    return tuple(found)


def _with_schema(messages: Sequence[Message], schema: type[BaseModel]) -> list[Message]:
    """Ask for JSON in the system message, so that the request itself stays as it is."""
    order = "Answer with one JSON object that fits this JSON schema, and with nothing else:\n" + json.dumps(
        schema.model_json_schema(), ensure_ascii=False
    )
    first, *rest = messages
    if first.role == "system":
        return [Message(role="system", content=f"{first.content}\n\n{order}"), *rest]
    return [Message(role="system", content=order), first, *rest]


def _unfenced(text: str) -> str:
    match = _FENCE.search(text)
    return (match[1] if match else text).strip()


def _problem(error: ValidationError) -> str:
    parts = (f"{'.'.join(map(str, item['loc'])) or 'answer'}: {item['msg']}" for item in error.errors())
    return "; ".join(list(parts)[:5])


def _asked_to_wait(outcome: Any) -> float:
    """Seconds the provider asked to wait (Retry-After), 0 if it did not say."""
    headers = getattr(outcome.exception(), "litellm_response_headers", None) or {}
    try:
        seconds = float(headers.get("retry-after", 0))
    except ValueError:  # an HTTP date; the backoff will do
        seconds = 0.0
    return min(seconds, LONGEST_WAIT)


def _clean(text: str) -> str:
    """One line of at most 300 characters with everything that looks like a secret taken out."""
    line = " ".join(text.partition("\nTraceback")[0].split()).removeprefix("litellm.")
    for name, value in os.environ.items():
        if _SECRET_NAME.search(name) and len(value) >= 6:
            line = line.replace(value, "[secret]")
    line = _SECRET.sub("[secret]", line)
    return line if len(line) <= 300 else line[:297] + "..."
