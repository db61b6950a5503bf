"""The environment of the research questions."""

from collections.abc import Sequence
from typing import Any, ClassVar

from tutelage.environments.base import ActionRefused, Outcome
from tutelage.environments.research.questions import FAMILIES, Question, questions
from tutelage.environments.research.world import index
from tutelage.environments.sandbox import Sandbox, open_sandbox
from tutelage.environments.search_index import Passage
from tutelage.environments.tools import NOTHING_YET, ToolEnvironment, shorten
from tutelage.errors import EnvironmentBroken, UnknownName
from tutelage.types import Split, Task, Tool


def _tool(name: str, argument: str, description: str) -> Tool:
    properties = {argument: {"type": "string"}}
    return Tool(
        name=name,
        description=description,
        parameters={"type": "object", "properties": properties, "required": [argument]},
    )


TOOLS = (
    _tool("search", "query", "Find passages by keywords."),
    _tool("python", "code", "Run Python and see what it prints."),
    _tool("answer", "value", "Give the final answer."),
)
PRINTED = "Printed: "
"""Begins the result of `python`."""
PROBLEM_LENGTH = 200
"""Characters of an error message."""
NOTHING_FOUND = "No passage has any of these words."


class Research(ToolEnvironment):
    """Questions over a synthetic encyclopedia (about 600 passages, the same on every machine) that take two or
    three look-ups and a computation, in the manner of agent distillation: search, own Python code, an answer.

    The tasks are a fixed set of up to 600 questions per family. Train, validation and test ask about different
    towns, companies, people and rivers, so no question and no fact that answers a held-out one is needed in
    training; all splits share one corpus and its wording, so passages of held-out things may turn up among the
    neighbours of a training search.

    Code runs in the kernel sandbox and nowhere else: without one the first episode does not begin.
    """

    name: ClassVar[str] = "research"
    trust: ClassVar[float] = 1.0
    intro: ClassVar[str] = 'Look things up, compute, then answer. One call per turn, e.g. search({"query": "word"}).'

    def __init__(self, *, unsafe: bool = False) -> None:
        """
        Args:
            unsafe: run model-written code without isolation where the machine offers none.
        """
        self._unsafe = unsafe
        self._sandbox: Sandbox | None = None
        self._question: Question | None = None
        self._seen: set[str] = set()
        """Titles of the passages found in this episode."""

    @classmethod
    def families(cls) -> tuple[str, ...]:
        return tuple(sorted(FAMILIES))

    @classmethod
    def seeds(cls, split: Split, family: str) -> Sequence[int]:
        """Numbers of the family's questions; those of train come first, then validation, then test."""
        _check(family)
        first = sum(len(questions(family, earlier)) for earlier in list(Split)[: list(Split).index(split)])
        return range(first, first + len(questions(family, split)))

    def start(self, task: Task) -> tuple[str, str]:
        """
        Raises:
            MissingPart: no isolation for code on this machine, or no search library.
            UnknownName: there is no such task.
        """
        _check(task.family)
        every = [question for split in Split for question in questions(task.family, split)]
        if not 0 <= task.seed < len(every):
            raise UnknownName(f"research has no task {task.family}@{task.seed}; they go from 0 to {len(every) - 1}")
        index()
        if self._sandbox is None:
            self._sandbox = open_sandbox(unsafe=self._unsafe)
        self._question, self._seen = every[task.seed], set()
        self.offer(TOOLS)
        return self._question.text, NOTHING_YET

    def invoke(self, name: str, arguments: dict[str, Any]) -> Outcome:
        if self._question is None:
            raise EnvironmentBroken("there is no episode; reset the environment first")
        if name == "search":
            found = index().search(arguments["query"])
            self._seen |= {passage.title for passage in found}
            return Outcome(_listed(found), credit=self._credit())
        if name == "python":
            return Outcome(self._run(arguments["code"]), credit=self._credit())
        solved, credit = self._question.accepts(arguments["value"]), self._credit()
        self._question = None
        return Outcome("The answer was given.", float(solved), terminated=True, credit=1.0 if solved else credit)

    def close(self) -> None:
        if self._sandbox is not None:
            self._sandbox.close()
            self._sandbox = None

    def _credit(self) -> float:
        """Half for having found all that is needed; the other half is the answer's."""
        assert self._question is not None
        sources = self._question.sources
        return 0.5 * len(sources & self._seen) / len(sources)

    def _run(self, code: str) -> str:
        if self._sandbox is None:
            raise EnvironmentBroken("the sandbox is closed")
        ran = self._sandbox.run(code)
        if ran.problem:
            raise ActionRefused(f"The code failed: {ran.problem[:PROBLEM_LENGTH]}")
        output = ran.output.strip()
        if not output:
            raise ActionRefused("The code printed nothing; print the result.")
        return PRINTED + shorten(output)


def _listed(found: Sequence[Passage]) -> str:
    lines = (f"[{n}] {passage.title}: {passage.text}" for n, passage in enumerate(found, start=1))
    return "\n".join(lines) or NOTHING_FOUND


def _check(family: str) -> None:
    if family not in FAMILIES:
        raise UnknownName(f"unknown research family {family!r}; known: {', '.join(sorted(FAMILIES))}")
