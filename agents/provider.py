"""The embedded scripted expert as a LiteLLM provider: ``expert/NAME`` answers chat requests by rule.

It sees the text of the request and nothing else, exactly what a language model in its place would see.
"""

from collections.abc import Sequence
from typing import Any

import litellm
from litellm import CustomLLM, ModelResponse

from tutelage.agents.experts import View, expert_for
from tutelage.agents.rules import ANSWERS, answer
from tutelage.conversation import join_reply, read_turn, split_reply
from tutelage.errors import PolicyFailed

PROVIDER = "expert"
ANY = "*"
"""Stands for every environment in the roles that read its name in the request."""


class EmbeddedExpert(CustomLLM):
    """Answers a chat request from its text alone."""

    def completion(self, *args: Any, **request: Any) -> ModelResponse:
        """The answer as a chat completion; tokens as LiteLLM's own counter counts them.

        Raises:
            TutelageError: no expert knows this environment or this goal, or the request is not an episode.
        """
        model, messages = request["model"], request["messages"]
        text = reply(model, messages)
        response: ModelResponse = request["model_response"]
        response.model = f"{PROVIDER}/{model}"
        response.choices[0].message.content = text
        prompt = litellm.token_counter(model=model, messages=messages)
        completion = litellm.token_counter(model=model, text=text)
        usage = litellm.Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)
        setattr(response, "usage", usage)  # noqa: B010 - LiteLLM declares the field on a subclass only
        return response


def register(environment: str | None = None) -> None:
    """Make ``expert/…`` known to LiteLLM; doing it again changes nothing.

    Raises:
        UnknownName: there is no expert for `environment`.
    """
    if environment not in (None, ANY):
        expert_for(environment)
    if not any(item["provider"] == PROVIDER for item in litellm.custom_provider_map):
        litellm.custom_provider_map.append({"provider": PROVIDER, "custom_handler": EmbeddedExpert()})


def reply(environment: str, messages: Sequence[dict[str, str]]) -> str:
    """What the expert says to these messages, in the role that their system message gives it."""
    role = role_of(messages)
    if role is not None:
        return answer(role, "\n\n".join(message["content"] for message in messages if message["role"] == "user"))
    return join_reply(*expert_for(environment)(view_of(messages)))


def role_of(messages: Sequence[dict[str, str]]) -> str | None:
    """The role that the first line of the system message names, ``Role: NAME``; None for the acting role."""
    if not messages or messages[0]["role"] != "system":
        return None
    first = messages[0]["content"].lstrip().partition("\n")[0].strip()
    return next((role for role in ANSWERS if first == f"Role: {role}"), None)


def view_of(messages: Sequence[dict[str, str]]) -> View:
    """Goal, observations and past actions of an episode, read back from its conversation.

    Raises:
        PolicyFailed: it is not one.
    """
    turns = [read_turn(message["content"]) for message in messages if message["role"] == "user"]
    replies = [message["content"] for message in messages if message["role"] == "assistant"]
    if not turns or turns[0][0] is None:
        raise PolicyFailed("the scripted expert answers episodes only: no line starts with 'Goal: '")
    return View(
        goal=turns[0][0],
        observations=tuple(observation for _, observation in turns),
        actions=tuple(split_reply(text)[1] for text in replies),
    )
