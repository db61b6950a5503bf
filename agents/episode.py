"""One episode while it runs: its growing conversation, its steps, and what to tell the agent next."""

import time
from dataclasses import dataclass, field

from tutelage.agents.seeds import stable_seed
from tutelage.conversation import split_reply, turn_message
from tutelage.environments.base import Environment
from tutelage.experience import Experience, Guardrail, Recall
from tutelage.types import Cause, Context, Diagnosis, Ending, Message, Reply, Step, Task, Tool, Trajectory


@dataclass(frozen=True)
class Proposal:
    """A reply taken apart, before it is checked and carried out."""

    reply: Reply
    thought: str
    action: str
    meaning: str


@dataclass
class Episode:
    """Grows by `context` → `propose` → `record`, until `trajectory` closes it."""

    index: int
    task: Task
    seed: int
    policy: str
    memory: bool
    started: float
    goal: str = ""
    observation: str = ""
    environment: Environment | None = None
    tools: tuple[Tool, ...] = ()
    recall: Recall = field(default_factory=Recall)
    notes: tuple[str, ...] = ()
    failed: int = 0
    """Failed steps in a row."""
    messages: list[Message] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    proposal: Proposal | None = None

    @property
    def key(self) -> str:
        return f"{self.task.id}#{self.index}"

    def begin(self, goal: str, observation: str, environment: Environment) -> None:
        self.goal, self.observation, self.environment = goal, observation, environment
        self.tools = environment.tools
        self.messages.append(Message(role="system", content=environment.system))

    def context(self) -> Context:
        """Add this turn's message; the policy sees everything up to it."""
        first = not self.steps
        self.messages.append(
            turn_message(
                self.observation,
                self.notes,
                goal=self.goal if first else None,
                shown=self.recall.shown if first else (),
            )
        )
        assert self.environment is not None, "context before begin"
        seed = stable_seed(self.seed, len(self.steps))
        # An environment may offer more tools later on; the trajectory keeps those that its system message lists.
        return Context(self.key, tuple(self.messages), seed, self.task.environment, self.environment.tools)

    def propose(self, reply: Reply) -> Proposal:
        assert self.environment is not None, "propose before begin"
        thought, action = split_reply(reply.text)
        self.messages.append(Message(role="assistant", content=reply.text))
        self.proposal = Proposal(reply, thought, action, self.environment.meaning(action, self.observation))
        return self.proposal

    def record(
        self,
        diagnosis: Diagnosis,
        after: str,
        reward: float = 0.0,
        credit: float = 0.0,
        *,
        blocked_by: Experience | None = None,
    ) -> None:
        """Close the turn; a diagnosis that is not fine becomes a note in the next one."""
        assert self.proposal is not None, "record before propose"
        proposal, self.proposal = self.proposal, None
        self.steps.append(
            Step(
                observation=self.observation,
                notes=self.notes,
                reply=proposal.reply.text,
                thought=proposal.thought,
                action=proposal.action,
                meaning=proposal.meaning,
                diagnosis=diagnosis,
                after=after,
                reward=reward,
                credit=credit,
                blocked_by=blocked_by.id if blocked_by else None,
                tokens=proposal.reply.tokens,
            )
        )
        self.observation = after
        self.failed = 0 if diagnosis.fine else self.failed + 1
        self.notes = () if diagnosis.fine or not diagnosis.evidence else (one_line(diagnosis.evidence),)

    def replan(self) -> None:
        """Ask for a different plan; names the constraint that failed."""
        last = self.steps[-1]
        constraint = one_line(last.diagnosis.evidence) or last.diagnosis.cause.value
        self.notes = (
            f"{self.failed} steps in a row failed, the last one {one_line(last.meaning or last.action)}: {constraint}",
            "Make a different plan.",
        )

    def trajectory(self, ending: Ending, error: str = "") -> Trajectory:
        return Trajectory(
            task=self.task,
            goal=self.goal,
            system=self.messages[0].content if self.messages else "",
            tools=self.tools,
            policy=self.policy,
            memory=self.memory,
            shown=self.recall.shown,
            steps=tuple(self.steps),
            reward=sum(step.reward for step in self.steps),
            ending=ending,
            error=error,
            seconds=time.monotonic() - self.started,
        )


def blocked(guardrail: Experience) -> Diagnosis:
    """The diagnosis of an action that `guardrail` forbids: why, and what to do instead."""
    rule = guardrail.content
    assert isinstance(rule, Guardrail), f"{guardrail.id} is not a guardrail"
    return Diagnosis(cause=Cause.BLOCKED, evidence=f"Blocked: {rule.root_cause} {rule.remedy}")


def one_line(text: str) -> str:
    return " ".join(text.split())
