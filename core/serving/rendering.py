"""A request's messages as the conversation that a student was trained on."""

from collections.abc import Sequence

from tutelage import tools as tooling
from tutelage.conversation import join_reply, turn_message
from tutelage.errors import RequestRefused
from tutelage.serving.types import ChatMessage
from tutelage.types import Message, Tool


def conversation(messages: Sequence[ChatMessage], tools: Sequence[Tool] = ()) -> tuple[Message, ...]:
    """System, user, assistant, user, …, as `training.chat.ChatEncoder` takes them, ending with the user.

    The first system messages become one, later ones speak as the user, and so do tools: a result is an observation, as
    in episodes. Messages of one side in a row are one message. Calls are written in our grammar.

    Args:
        tools: those offered; the system message lists them.

    Raises:
        RequestRefused: the assistant has the last word, or nobody says anything.
    """
    first = next((place for place, message in enumerate(messages) if message.role != "system"), len(messages))
    system = "\n\n".join(message.content for message in messages[:first])
    spoken = [Message(role="system", content=tooling.with_listing(system, tools))]
    for message in messages[first:]:
        role, text = "assistant" if message.role == "assistant" else "user", _text(message)
        if spoken[-1].role == role:
            before = spoken.pop().content
            text = f"{before}\n{text}" if before else text
        elif role == "assistant" and len(spoken) == 1:
            spoken.append(Message(role="user", content=""))
        spoken.append(Message.model_validate({"role": role, "content": text}))
    if spoken[-1].role != "user":
        raise RequestRefused("the last message must be the user's or a tool's, for the student to answer it")
    return tuple(spoken)


def _text(message: ChatMessage) -> str:
    if message.role == "tool":
        return turn_message(message.content).content
    text = message.content
    for call in message.calls:
        text = join_reply(text, tooling.call_from_openai(call.name, call.arguments))
    return text
