"""From what a client sent to a request that was understood."""

from collections.abc import Sequence

from tutelage.memory.server.auth import Caller
from tutelage.service_config import ServeConfig
from tutelage.serving.errors import ApiError
from tutelage.serving.offered import Names, checkable
from tutelage.serving.schemas import ChatRequest, NamedTool, OfferedTool, SentMessage, SentOptions
from tutelage.serving.types import Chat, ChatMessage, Options, Prompt, Sampling, ToolCall
from tutelage.types import Tool, new_id


def understood(sent: ChatRequest, caller: Caller, config: ServeConfig) -> tuple[Chat, Names]:
    """The request in our terms, and the names of its tools.

    Raises:
        ApiError: it makes no sense, or asks for what is not done here.
        RequestRefused: a tool's schema cannot be used.
    """
    tools = sent.tools or []
    offered = [tool.function.name for tool in tools]
    if len(set(offered)) < len(offered):
        raise ApiError(400, "two tools have the same name", param="tools")
    called = [call.function.name for message in sent.messages for call in message.tool_calls or ()]
    names = Names([*offered, *called])
    prompt = Prompt(
        messages=_messages(sent.messages, names),
        sampling=_sampling(sent, config),
        tools=tuple(_tool(tool, names) for tool in tools),
        tool_choice=_choice(sent, offered, names),
    )
    options = _options(sent)
    id = new_id("chatcmpl").replace("_", "-")
    return Chat(id, caller.name, caller.tenant, prompt, options, sent.model), names


def _messages(sent: Sequence[SentMessage], names: Names) -> tuple[ChatMessage, ...]:
    """Raises ApiError: calls and their answers do not fit together, or there is nothing to reply to."""
    waiting: set[str] = set()
    found = []
    for index, message in enumerate(sent):
        place = f"messages.{index}"
        if message.role == "tool":
            if message.tool_call_id not in waiting:
                raise ApiError(400, "answers no call of the assistant's message before it", param=place)
            waiting.discard(message.tool_call_id)
        elif waiting:
            raise ApiError(400, "a call of the assistant's is not answered before it", param=place)
        for call in message.tool_calls or ():
            if call.id in waiting:
                raise ApiError(400, "two calls of a message have the same id", param=place)
            waiting.add(call.id)
        found.append(_message(message, names))
    if waiting:
        raise ApiError(400, "calls of the last message are not answered", param="messages")
    if found[-1].role not in ("user", "tool"):
        raise ApiError(400, "the last message is to be the user's or a tool's", param="messages")
    return tuple(found)


def _message(sent: SentMessage, names: Names) -> ChatMessage:
    content = sent.content if sent.content is not None else sent.refusal or ""
    calls = (
        ToolCall(call.id, names.inside(call.function.name), call.function.arguments) for call in sent.tool_calls or ()
    )
    return ChatMessage(
        role="system" if sent.role == "developer" else sent.role,
        content=content if isinstance(content, str) else "\n".join(part.text for part in content),
        calls=tuple(calls),
        call_id=sent.tool_call_id or "",
    )


def _sampling(sent: ChatRequest, config: ServeConfig) -> Sampling:
    length = sent.max_completion_tokens or sent.max_tokens or config.max_new_tokens
    if length > config.max_new_tokens:
        param = "max_completion_tokens" if sent.max_completion_tokens else "max_tokens"
        raise ApiError(400, f"a reply may have {config.max_new_tokens} tokens at most", param=param)
    stop = [sent.stop] if isinstance(sent.stop, str) else sent.stop or []
    greedy = sent.top_p == 0
    return Sampling(
        max_new_tokens=length,
        temperature=0.0 if greedy else sent.temperature or 0.0,
        top_p=1.0 if greedy or sent.top_p is None else sent.top_p,
        stop=tuple(stop),
        seed=sent.seed,
    )


def _tool(sent: OfferedTool, names: Names) -> Tool:
    function = sent.function
    tool = Tool(
        name=names.inside(function.name),
        description=function.description or "",
        parameters=function.parameters or {},
    )
    checkable(tool)
    return tool


def _choice(sent: ChatRequest, offered: Sequence[str], names: Names) -> str:
    choice = sent.tool_choice
    if isinstance(choice, NamedTool):
        if choice.function.name not in offered:
            raise ApiError(400, "it names none of the tools", param="tool_choice")
        return names.inside(choice.function.name)
    if choice == "required" and not offered:
        raise ApiError(400, "there are no tools to call", param="tool_choice")
    return choice or "auto"


def _options(sent: ChatRequest) -> Options:
    given = sent.tutelage or SentOptions()
    return Options(
        memory=given.memory,
        guardrails=given.guardrails,
        record=False if sent.store is False else given.record,
        session=given.session or "",
        environment=given.environment or "",
    )
