"""What clients of the endpoint send and get: OpenAI's chat completions, as far as a student can do them.

What would change a reply and cannot be done is refused, so that nobody is answered otherwise than asked. What changes
no reply (`user`, `metadata` …) is taken and not looked at.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

MAX_MESSAGES = 2048
MAX_TOOLS = 128
MAX_STOPS = 4
SEED = 2**63
PLACE = r"^[A-Za-z0-9][A-Za-z0-9_.:/-]{0,127}$"
"""Names of environments."""
SESSION = r"^[\x21-\x7e]{0,200}$"
"""Names of conversations: what is printed without a space."""


def _whole(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("half of a character (a lone surrogate)") from error
    return text


Text = Annotated[str, AfterValidator(_whole)]
Stop = Annotated[Text, Field(min_length=1)]
"""An empty one would end every reply."""


class Sent(BaseModel):
    """Base of what clients send: nothing is converted, and what is unknown is refused."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class TextPart(Sent):
    """A piece of a message."""

    type: Literal["text"]
    text: Text


class SentBack(Sent):
    """Base of what clients got from some server and send back. Fields of other servers are not looked at."""

    model_config = ConfigDict(strict=True, extra="ignore")


class CalledFunction(SentBack):
    """Which function with which arguments."""

    name: Annotated[Text, Field(min_length=1, max_length=128)]
    arguments: Text
    """A JSON object as text."""


class SentCall(SentBack):
    """A call that the assistant made."""

    id: Annotated[Text, Field(min_length=1, max_length=200)]
    type: Literal["function"] = "function"
    function: CalledFunction


class SentMessage(SentBack):
    """One message."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | list[TextPart] | None = None
    tool_calls: list[SentCall] | None = None
    """Of the assistant."""
    tool_call_id: Text | None = None
    """Of a tool's answer: which call it answers."""
    refusal: Text | None = None
    function_call: None = None

    @model_validator(mode="after")
    def _fits_its_role(self) -> Self:
        if self.tool_calls and self.role != "assistant":
            raise ValueError("only the assistant makes tool_calls")
        if (self.tool_call_id is not None) != (self.role == "tool"):
            raise ValueError("tool_call_id belongs to the role tool, and only there")
        if self.content is None and not (self.role == "assistant" and (self.tool_calls or self.refusal is not None)):
            raise ValueError("content is missing")
        return self


class OfferedFunction(Sent):
    """What may be called."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    """JSON schema of the arguments, an object."""
    strict: bool | None = None
    """Calls are always held to the schema."""


class OfferedTool(Sent):
    """A tool that may be called."""

    type: Literal["function"]
    function: OfferedFunction


class NamedFunction(Sent):
    """A function by its name."""

    name: Annotated[Text, Field(min_length=1, max_length=64)]


class NamedTool(Sent):
    """The tool that is to be called."""

    type: Literal["function"]
    function: NamedFunction


class StreamOptions(Sent):
    """Of a streamed reply."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class TextFormat(Sent):
    """The only form of a reply that can be asked for."""

    type: Literal["text"]


class SentOptions(Sent):
    """What Tutelage does around this request; what is left out is as configured."""

    memory: bool | None = None
    """Whether experiences are put into the prompt."""
    guardrails: bool | None = None
    """Whether tool calls that a guardrail forbids are held back."""
    record: bool | None = None
    """False: nothing of this exchange is kept. True changes nothing."""
    session: Annotated[str, Field(pattern=SESSION)] | None = None
    """The caller's own name of the conversation; without one it is recognised by how it begins."""
    environment: Annotated[str, Field(pattern=PLACE)] | None = None
    """Whose experiences and guardrails."""


class ChatRequest(Sent):
    """A request for a reply."""

    model: Annotated[Text, Field(min_length=1, max_length=200)]
    """``student`` is the promoted version, ``student@3`` a certain one if it is loaded."""
    messages: Annotated[list[SentMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """Default 0: as the student was evaluated."""
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None = None
    seed: Annotated[int, Field(ge=-SEED, le=SEED - 1)] | None = None
    tools: Annotated[list[OfferedTool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["auto", "none", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    tutelage: SentOptions | None = None

    n: Literal[1] | None = None
    response_format: TextFormat | None = None
    modalities: Annotated[list[Literal["text"]], Field(max_length=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    logprobs: Literal[False] | None = None
    top_logprobs: Literal[0] | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None

    store: bool | None = None
    """False: nothing of this exchange is kept, as with ``tutelage.record``."""
    user: str | None = None
    metadata: dict[str, str] | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options belong to stream = true")
        lengths = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(lengths) > 1:
            raise ValueError("max_tokens and max_completion_tokens mean the same; give one of them")
        return self


# -- what is sent back --------------------------------------------------------------------------


class MadeCall(BaseModel):
    """A call that the student wants made."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class ReplyMessage(BaseModel):
    """What the student said."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    tool_calls: list[MadeCall] | None = None


class Choice(BaseModel):
    """The one reply."""

    index: Literal[0] = 0
    message: ReplyMessage
    logprobs: None = None
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"]


class Usage(BaseModel):
    """Tokens that were read and written for it, those of replies that were held back among them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ShownExperience(BaseModel):
    """An experience that was in the prompt."""

    id: str
    version: int


class Around(BaseModel):
    """What was done around the request."""

    student: str
    """The version that answered."""
    shown: list[ShownExperience]
    blocked: list[str]
    """Ids of guardrails that held a call back."""


class ChatCompletion(BaseModel):
    """A whole reply."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    tutelage: Around


class Model(BaseModel):
    """A name that requests can use as their model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "tutelage"


class Models(BaseModel):
    """All of them; the first is the promoted version."""

    object: Literal["list"] = "list"
    data: list[Model]


class Health(BaseModel):
    """The server answers."""

    status: Literal["ok"] = "ok"


class Problem(BaseModel):
    """What went wrong."""

    message: str
    type: Literal["invalid_request_error", "authentication_error", "rate_limit_error", "server_error"]
    param: str | None
    code: str | None


class Failure(BaseModel):
    """The one form of all errors."""

    error: Problem
