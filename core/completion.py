"""One attempt at one call to a language model, through LiteLLM: data in, data or one clear failure out.

Retries, budgets and concurrency are the caller's (`tutelage.llm`). Here an attempt is at most one HTTP request, it
ends at its deadline whatever the provider does, and what comes back is checked and bounded before anything else
sees it. LiteLLM is imported when the first model is made.
"""

import json
import os
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from types import ModuleType
from typing import Any

from tutelage.encodable import encodable
from tutelage.errors import PolicyFailed, TutelageError
from tutelage.secrets import without_secrets
from tutelage.types import Frozen
from tutelage.wire import MAX_BODY, Again, Endless, Late, anthropic_client, hold_openai, within

PROVIDERS = {"expert": "tutelage.agents.provider:register"}
"""Embedded providers: prefix of the model string → dotted path of what makes LiteLLM know it, given the rest."""

TIMEOUT = 120.0
"""Seconds from sending a request to the last byte of its answer, if nothing else is said."""
MAX_REPLY = 200_000
"""Characters of a reply, tool calls included; a longer one is a failure and is not kept."""
NO_WAY = ("Missing credentials", "LLM Provider NOT provided", "GetLLMProvider Exception")
"""What LiteLLM says, with all kinds of codes, where a key is missing or a model string names no provider."""
NO_TOOLS = ' (the request offered tools; if this model or its server takes none, set teacher.tools = "text")'

_PREFIX = re.compile(r"(?:litellm\.)?(\w+: )(?:litellm\.)?\1")
"""LiteLLM says twice what kind of error it is."""


class Call(Frozen):
    """One request as it goes to the provider, in OpenAI's format; equal calls may be answered alike."""

    model: str
    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...] = ()
    options: dict[str, Any] = {}
    """Whatever else LiteLLM is told: temperature, max_tokens, response_format …"""


class Spent(Frozen):
    """What the provider says that an answer cost."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt's tokens, those that the provider took from its cache."""
    dollars: float | None = None
    """None for a model without a known price."""


class Response(Frozen):
    """What a provider answered."""

    text: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    """Name and arguments (JSON text, if the provider gave such) of every tool call."""
    usage: Spent = Spent()
    finish: str = ""
    """Why the model stopped, in OpenAI's words: stop, length, tool_calls …"""
    replayed: bool = False
    """Whether it comes from a cassette and cost nothing now."""


class Failure(Frozen):
    """Why there is no answer."""

    line: str
    """One line without secrets."""
    transient: bool = False
    """Whether the same call may succeed later."""
    wait: float = 0.0
    """Seconds that the provider asked to wait."""
    status: int = 0
    """HTTP status of the refusal; 0 if there was none."""
    refused: bool = False
    """Whether every other call would fail in the same way: no key, a wrong one, no such model."""
    usage: Spent | None = None
    """The cost of an answer that came and was of no use."""
    replayed: bool = False
    """Whether it comes from a cassette, so that nothing was spent and there is nothing to wait for."""


class AttemptFailed(PolicyFailed):
    """One attempt brought no answer."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.line)
        self.failure = failure


def is_embedded(model: str) -> bool:
    """Whether the model answers in this process, by rule."""
    return model.partition("/")[0] in PROVIDERS


def attempt(call: Call, *, timeout: float = TIMEOUT) -> Response:
    """Ask once.

    Args:
        timeout: seconds for the whole attempt, however slowly the answer drips in.

    Raises:
        AttemptFailed: no answer that can be used; the provider's own exceptions never come through.
    """
    if is_embedded(call.model):
        return _read(call, _embedded(call))
    litellm()  # importing it takes seconds that are not the provider's
    try:
        raw = within(timeout, lambda: _ask(call, timeout))
    except Late as error:
        raise AttemptFailed(Failure(line=f"{call.model}: {error}", transient=True)) from None
    except Again:
        raise AttemptFailed(Failure(line=f"{call.model}: the provider refuses the order of the messages")) from None
    except Endless:
        raise AttemptFailed(Failure(line=f"{call.model}: the answer has more than {MAX_BODY} bytes")) from None
    except Exception as error:  # nothing of ours runs in there: it is the provider's, or LiteLLM's view of it
        raise AttemptFailed(_failure(call, error)) from None
    return _read(call, raw)


@cache
def litellm() -> ModuleType:
    """LiteLLM, without the files it would fetch, telemetry and banners."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    os.environ["LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS"] = "True"
    import litellm

    litellm.telemetry = False
    litellm.suppress_debug_info = True
    hold_openai(litellm)
    return litellm


def provider_name(model: str) -> str:
    """The provider that a LiteLLM model string means; the string may name it before a slash, or not at all."""
    prefix, slash, _ = model.partition("/")
    if slash:
        return prefix
    try:
        return str(litellm().get_llm_provider(model)[1])
    except litellm().exceptions.BadRequestError:  # nobody knows; the call itself will say so
        return ""


def _ask(call: Call, timeout: float) -> Any:
    more: dict[str, Any] = {"tools": list(call.tools)} if call.tools else {}
    if provider_name(call.model) == "anthropic":
        more["client"] = anthropic_client()
    return litellm().completion(
        model=call.model,
        messages=[dict(message) for message in call.messages],
        max_retries=0,  # of the provider's own client; retries are counted and paced by the caller
        timeout=timeout,
        **more,
        **call.options,
    )


def _embedded(call: Call) -> Any:
    """The embedded provider's response; LiteLLM wraps what it raises, and a bug of ours shall be seen as it is."""
    from openai import OpenAIError

    try:
        return _ask(call, TIMEOUT)
    except OpenAIError as error:  # the root of all of LiteLLM's provider errors
        original = error.__context__
        if isinstance(original, Exception) and not isinstance(original, TutelageError):
            raise original from None
        raise AttemptFailed(Failure(line=f"{call.model}: {clean(str(original or error))}")) from None


# -- reading an answer -------------------------------------------------------------------------------------------


def _read(call: Call, raw: Any) -> Response:
    """The checked answer; providers leave out, and put in, all kinds of things."""
    choices = getattr(raw, "choices", None)
    message = getattr(choices[0], "message", None) if isinstance(choices, list) and choices else None
    content = getattr(message, "content", None)
    text = encodable(content) if isinstance(content, str) else ""
    calls = _calls(message) if call.tools else ()
    size = len(text) + sum(len(name) + len(arguments) for name, arguments in calls)
    spent = _spent(call, raw, text if size <= MAX_REPLY else "")
    finish = getattr(choices[0], "finish_reason", None) if message is not None and choices else None
    refusal = _refusal(message)
    why = ""
    if message is None:
        why = "the provider's answer holds no message"
    elif refusal or (finish == "content_filter" and not calls):
        why = f"the model refused: {refusal or text or 'its provider filtered the answer'}"
    elif content is not None and not isinstance(content, str):
        why = "the provider's answer is not text"
    elif size > MAX_REPLY:
        why = f"the reply has {size} characters; the limit is {MAX_REPLY}"
    if why:
        raise AttemptFailed(Failure(line=f"{call.model}: {clean(why)}", transient=message is None, usage=spent))
    return Response(text=text, calls=calls, usage=spent, finish=finish if isinstance(finish, str) else "")


def _refusal(message: Any) -> str:
    extra = getattr(message, "provider_specific_fields", None)
    said = getattr(message, "refusal", None) or (extra.get("refusal") if isinstance(extra, dict) else None)
    return str(said or "")


def _calls(message: Any) -> tuple[tuple[str, str], ...]:
    """Names and arguments of a message's tool calls; some servers give the arguments as an object."""
    found = []
    for call in getattr(message, "tool_calls", None) or ():
        function = getattr(call, "function", None)
        name, arguments = getattr(function, "name", None) or "", getattr(function, "arguments", None) or ""
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, default=str)
        found.append((encodable(str(name)), encodable(text)))
    return tuple(found)


def _spent(call: Call, raw: Any, text: str) -> Spent:
    """The cost as the provider counts it, or, where it does not say, as LiteLLM counts the tokens of `text`."""
    used = getattr(raw, "usage", None)
    prompt, completion = _count(used, "prompt_tokens"), _count(used, "completion_tokens")
    if not prompt and not completion:
        prompt = litellm().token_counter(model=call.model, messages=list(call.messages))
        completion = litellm().token_counter(model=call.model, text=text)
        raw = None
    cached = _count(getattr(used, "prompt_tokens_details", None), "cached_tokens")
    return Spent(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=cached,
        dollars=0.0 if is_embedded(call.model) else _price(call.model, raw, prompt, completion),
    )


def _price(model: str, raw: Any, prompt: int, completion: int) -> float | None:
    """Dollars; what is known of caches and tiers is in the answer, if the provider counted at all."""
    try:
        if raw is not None:
            return float(litellm().completion_cost(raw, model=model))
        return sum(litellm().cost_per_token(model=model, prompt_tokens=prompt, completion_tokens=completion))
    except Exception:  # what LiteLLM raises for a model without a known price differs by version
        return None


def _count(used: Any, name: str) -> int:
    value = getattr(used, name, 0)
    return max(0, value) if isinstance(value, int) else 0


# -- reading a failure -------------------------------------------------------------------------------------------


def _failure(call: Call, error: Exception) -> Failure:
    kinds = litellm().exceptions
    status = getattr(error, "status_code", 0)
    status = status if isinstance(status, int) else 0
    lost = isinstance(error, kinds.APIConnectionError | kinds.Timeout)
    hint = NO_TOOLS if call.tools and _may_be_about_tools(error) else ""
    refused = status in (401, 404) or any(text in str(error) for text in NO_WAY)
    return Failure(
        line=f"{call.model}: {clean(str(error) or type(error).__name__)}{hint}",
        transient=not refused and (lost or status in (408, 409, 425, 429) or status >= 500),
        wait=_asked_to_wait(error),
        status=status,
        refused=refused,
    )


def _may_be_about_tools(error: Exception) -> bool:
    """Servers refuse tools with all kinds of codes and texts."""
    kinds = litellm().exceptions
    if isinstance(error, kinds.ContextWindowExceededError | kinds.ContentPolicyViolationError):
        return False
    bad = isinstance(error, kinds.BadRequestError | kinds.UnprocessableEntityError)
    return bad or "tool" in str(error).lower()


def _asked_to_wait(error: Exception) -> float:
    """Seconds of Retry-After, which is a number or an HTTP date; 0 if the provider did not say."""
    headers = getattr(error, "litellm_response_headers", None) or getattr(
        getattr(error, "response", None), "headers", None
    )
    text = str((headers or {}).get("retry-after", ""))
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def clean(text: str) -> str:
    """One line of at most 300 characters with everything that looks like a secret taken out."""
    line = " ".join(text[:20_000].partition("\nTraceback")[0].split())
    line = encodable(without_secrets(_PREFIX.sub(r"\1", line, count=1).removeprefix("litellm.")))
    return line if len(line) <= 300 else line[:297] + "..."
