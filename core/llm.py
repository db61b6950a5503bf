"""Every call to a language model: roles, retries, structured output, accounting and a hard budget.

One attempt at a call is `tutelage.completion`; models of an embedded provider go through the very same path.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from pydantic import ValidationError

from tutelage import structured
from tutelage.cassette import Cassette, NotRecorded
from tutelage.completion import (
    PROVIDERS,
    AttemptFailed,
    Call,
    Response,
    Spent,
    attempt,
    is_embedded,
    litellm,
    provider_name,
)
from tutelage.config import BudgetConfig
from tutelage.errors import PolicyFailed, ProviderRefused, TutelageError
from tutelage.providers import provider_of
from tutelage.registry import resolve
from tutelage.structured import Schema
from tutelage.types import Message
from tutelage.usage import Usage, UsageLog

T = TypeVar("T")
Asked = TypeVar("Asked")

REPAIRS = 2
"""How often a structured answer that does not fit is sent back with the error."""
LONGEST_WAIT = 60.0
"""Seconds between two attempts at most, whatever the provider asks for."""
QUOTED = 2000
"""Characters of an answer that does not fit which are sent back with the error."""
CLAUDES_HOSTS = ("bedrock", "vertex_ai", "openrouter")
"""Providers, besides Anthropic, whose Claude models cache prompts only on request."""


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
        prompt_cache: bool = False,
        cassette: Cassette | None = None,
    ) -> None:
        """
        Args:
            model: LiteLLM model string; ``expert/NAME`` is the embedded scripted expert.
            role: what its usage is counted under, e.g. ``teacher``, ``judge``.
            usage: shared by all models that share a budget.
            concurrency: calls to its provider under way at once, whichever model and role they are for.
            retries: attempts after the first on rate limits, server errors, timeouts and lost connections.
            backoff: seconds before the first retry; doubles each time, with jitter.
            timeout: seconds per attempt, to the last byte of the answer.
            prompt_cache: ask a provider that caches prompts only on request to keep the system message.
            cassette: where exchanges are kept, and taken from.

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
        self._make = partial(attempt, timeout=timeout)
        self._cassette = cassette
        self._options: dict[str, Any] = {"temperature": temperature, "max_tokens": max_tokens}
        self._embedded = is_embedded(model)
        if self._embedded:
            prefix, _, name = model.partition("/")
            litellm()
            resolve(prefix, PROVIDERS, what="provider")(name)
        elif prompt_cache and _caches_on_request(model):
            self._options["cache_control_injection_points"] = [{"location": "message", "role": "system"}]

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
        return self._saved(lambda: self._many(self._reply, requests))

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
        def caught(one: Asked) -> T | TutelageError:
            try:
                return call(one)
            except TutelageError as error:
                return error

        if len(asked) < 2 or self.concurrency == 1 or self._embedded:  # embedded: no waiting to overlap
            return [caught(one) for one in asked]
        with ThreadPoolExecutor(min(self.concurrency, len(asked))) as pool:
            return list(pool.map(caught, asked))

    # -- answers that fit a schema ---------------------------------------------------------------

    def _fitting(self, messages: Sequence[Message], schema: type[Schema]) -> Schema:
        asked = structured.with_schema(messages, schema)
        for _ in range(1 + REPAIRS):
            answer = self._in_format(asked, schema)
            try:
                return structured.read(answer, schema)
            except ValidationError as error:
                problem = structured.describe(error)
            asked += [
                Message(role="assistant", content=answer[:QUOTED] or "(nothing)"),  # some take no empty message
                Message(role="user", content=f"That does not fit the schema: {problem}. Answer with the JSON only."),
            ]
        raise PolicyFailed(f"{self.model}: no answer fits {schema.__name__} after {REPAIRS} repairs: {problem}")

    def _in_format(self, messages: Sequence[Message], schema: type[Schema]) -> str:
        """The answer, with the provider holding the model to the schema where it can; one that refuses is not
        asked to again."""
        refused, native = provider_of(self.model).without_schema, structured.response_format(schema)
        known = not self._embedded and litellm().supports_response_schema(self.model)
        if native is None or not known or self.model in refused:
            return self._answer(messages)
        try:
            return self._answer(messages, response_format=native)
        except AttemptFailed as error:
            if error.failure.status not in (400, 422):
                raise
        except NotRecorded:  # when it was recorded, another thread had already been refused
            return self._answer(messages)
        answer = self._answer(messages)  # if this fails too, the format was not what was refused
        refused.add(self.model)
        return answer

    # -- one call, tried again -------------------------------------------------------------------

    def _answer(self, messages: Sequence[Message], **options: Any) -> str:
        return self._ask(Request([message.model_dump() for message in messages]), **options).text

    def _reply(self, request: Request) -> Answer:
        response = self._ask(request)
        return Answer(response.text, response.calls)

    def _ask(self, request: Request, **options: Any) -> Response:
        from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

        call = Call(
            model=self.model,
            messages=tuple(request.messages),
            tools=tuple(request.tools),
            options=self._options | self._one_at_a_time(request) | options,
        )
        backoff = wait_exponential_jitter(initial=self.backoff, max=LONGEST_WAIT, jitter=self.backoff)
        retrying = Retrying(
            stop=stop_after_attempt(1 + self.retries),
            wait=lambda state: _pause(state.outcome, backoff(state)),
            retry=retry_if_exception(lambda error: isinstance(error, AttemptFailed) and error.failure.transient),
            reraise=True,
        )
        try:
            return retrying(self._attempt, call)
        except AttemptFailed as error:
            if error.failure.refused:
                raise ProviderRefused(
                    f"{error}; is the key exported, and the model string of the form provider/model? "
                    "`tutelage doctor` lists the keys it finds"
                ) from None
            raise

    def _attempt(self, call: Call) -> Response:
        """One attempt; one that is on the cassette is not sent, so it costs nothing and no budget forbids it."""
        if self._cassette is None or self._embedded:
            return self._send(call)
        try:
            response = self._cassette.attempt(call, self._send)
        except AttemptFailed as error:
            self.usage.add(self.role, Usage(replayed=int(error.failure.replayed)))
            raise
        self.usage.add(self.role, Usage(replayed=int(response.replayed)))
        return response

    def _send(self, call: Call) -> Response:
        try:
            with nullcontext() if self._embedded else provider_of(self.model).place(self.concurrency):
                self.usage.reserve(self.role, self.budget)
                return self._counted(call)
        finally:
            if not self._embedded:  # what was paid for is kept at once: a kill must not make room in the budget
                self.usage.save(self.role)

    def _counted(self, call: Call) -> Response:
        try:
            response = self._make(call)
        except AttemptFailed as error:
            if error.failure.usage is not None:
                self.usage.add(self.role, _cost(error.failure.usage))
            raise
        self.usage.add(self.role, _cost(response.usage))
        return response

    def _one_at_a_time(self, request: Request) -> dict[str, Any]:
        """That one tool call at a time is wanted, where the provider lets us say so."""
        if not request.tools:
            return {}
        accepted = litellm().get_supported_openai_params(model=self.model) or ()
        return {"parallel_tool_calls": False} if "parallel_tool_calls" in accepted else {}


def _caches_on_request(model: str) -> bool:
    provider = provider_name(model)
    return provider == "anthropic" or (provider in CLAUDES_HOSTS and "claude" in model)


def _cost(spent: Spent) -> Usage:
    fields: dict[str, Any] = spent.model_dump(exclude={"dollars"})
    return Usage(**fields, dollars=spent.dollars or 0.0, unpriced=int(spent.dollars is None))


def _pause(outcome: Any, backoff: float) -> float:
    """Seconds before the next attempt; after a replayed failure there is nobody to wait for."""
    failure = outcome.exception().failure
    return 0.0 if failure.replayed else max(backoff, min(failure.wait, LONGEST_WAIT))
