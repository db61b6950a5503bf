"""The distiller: one trajectory in, experiences out; every claim is checked against the trajectory.

Successes give stickers (after Sticker-TTS, 2509.05007; `agents.stickers` checks them) and skills, failures give
guardrails (both after Steve-Evolving, 2603.13131). A model writes them; the code here believes none of it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from tutelage.agents.drafts import MAX_DRAFTS, Distillation, Draft, Unfounded, borne_out, founded, kind_of
from tutelage.agents.overlap import overlaps
from tutelage.agents.recalled import repeats
from tutelage.agents.requests import distiller_request
from tutelage.agents.stickers import Trial, refine
from tutelage.agents.views import distiller_view
from tutelage.designs import Hint
from tutelage.errors import TutelageError
from tutelage.experience import Content, Experience, Kind, Source, Sticker
from tutelage.llm import LLM
from tutelage.patterns import goal_template
from tutelage.tools import signature
from tutelage.types import Frozen, Trajectory, Verdict

MAX_EXISTING = 12
"""Existing experiences shown to the distiller at most, the newest ones."""
MAX_DETAIL = 500
"""Characters of a rejected draft that are kept."""


class Rejection(Frozen):
    """Something that was proposed and not taken."""

    trajectory: str
    kind: Kind | None
    """None if the distiller had nothing to say."""
    reason: str
    """One of few fixed phrases, fit for counting."""
    detail: str = ""


class Distilled(Frozen):
    """What one trajectory gave."""

    trajectory: str
    experiences: tuple[Experience, ...]
    """Candidates."""
    rejections: tuple[Rejection, ...]
    stickers: dict[str, int] = {}
    """How many stickers were verified, repaired and left unverified."""


def distil(
    trajectory: Trajectory, verdict: Verdict, existing: Sequence[Experience], llm: LLM
) -> tuple[list[Experience], list[Rejection]]:
    """Distil one trajectory: candidates, and what was dropped and why.

    Raises:
        PolicyFailed: no usable answer after all retries.
        BudgetSpent: a limit was reached.
    """
    result = distil_many([(trajectory, verdict)], existing, llm)[0]
    if isinstance(result, TutelageError):
        raise result
    return list(result.experiences), list(result.rejections)


def distil_many(
    cases: Sequence[tuple[Trajectory, Verdict]],
    existing: Sequence[Experience],
    llm: LLM,
    *,
    hints: Mapping[str, Hint] | None = None,
    rounds: int = 0,
) -> list[Distilled | TutelageError]:
    """Distil each case, asked for at once; one that could not be had is its error in the list.

    Args:
        existing: experiences the distiller shall not repeat; it is shown those of the case's own family.
        hints: what the judge alone was told, by trajectory id; nothing that repeats it is taken.
        rounds: how often a sticker is repaired and checked, at most (`agents.stickers`); 0 takes it as it is.
    """
    asked = [case for case in cases if _tells(*case)]
    shown = [_related(existing, trajectory) for trajectory, _ in asked]
    requests = [distiller_request(distiller_view(*case, old)) for case, old in zip(asked, shown, strict=True)]
    replies = zip(llm.structured_many(requests, Distillation), shown, strict=True)
    results: list[_Reading | TutelageError] = []
    for trajectory, verdict in cases:
        reading = _Reading(trajectory, verdict, (hints or {}).get(trajectory.id), llm.label)
        results.append(reading)
        if not _tells(trajectory, verdict):
            reading.refuse(None, "the judge cites no mistake", "" if verdict.hinted else verdict.reason)
            continue
        reply, old = next(replies)
        if isinstance(reply, TutelageError):
            results[-1] = reply
        else:
            reading.read(reply, old)
    readings = [reading for reading in results if isinstance(reading, _Reading)]
    refine([trial for reading in readings for trial in reading.trials], llm, rounds=rounds)
    return [reading.result(checked=rounds > 0) if isinstance(reading, _Reading) else reading for reading in results]


def _tells(trajectory: Trajectory, verdict: Verdict) -> bool:
    """Whether there is something to learn: a success, or a mistake that the judge could name."""
    return trajectory.success or bool(verdict.cited)


def _told(trial: Trial) -> list[str]:
    if trial.refused or trial.error:
        return []
    return ["stickers verified" if trial.verified else "stickers unverified"] + ["stickers repaired"] * trial.repaired


def _related(existing: Sequence[Experience], trajectory: Trajectory) -> list[Experience]:
    task = trajectory.task
    same = [item for item in existing if (item.environment, item.family) == (task.environment, task.family)]
    return same[-MAX_EXISTING:]


class _Reading:
    """What is made of one trajectory's drafts."""

    def __init__(self, trajectory: Trajectory, verdict: Verdict, hint: Hint | None, author: str) -> None:
        self.trajectory, self.verdict, self.hint, self.author = trajectory, verdict, hint, author
        self.trials: list[Trial] = []
        self._taken: list[tuple[Content, tuple[int, ...]] | Trial] = []
        self._rejections: list[Rejection] = []

    def refuse(self, kind: Kind | None, reason: str, detail: str = "") -> None:
        found = Rejection(trajectory=self.trajectory.id, kind=kind, reason=reason, detail=detail[:MAX_DETAIL])
        self._rejections.append(found)

    def read(self, reply: Distillation, shown: Sequence[Experience]) -> None:
        """Take what the trajectory bears out; `shown` are the existing experiences in the order of their numbers."""
        if not reply.drafts():
            self.refuse(None, "the distiller found nothing to say", reply.note)
        for drafts in (reply.stickers, reply.skills, reply.guardrails):
            for draft in drafts[:MAX_DRAFTS]:
                self._draft(draft, shown)
            for draft in drafts[MAX_DRAFTS:]:
                self.refuse(kind_of(draft), "more drafts of a kind than are looked at")

    def result(self, *, checked: bool) -> Distilled | TutelageError:
        """Once the trials have been held; `checked` says whether they were more than a formality."""
        experiences = []
        for item in self._taken:
            if isinstance(item, Trial):
                if item.error is not None:
                    return item.error
                if item.refused:
                    self.refuse("sticker", item.refused, item.sticker.model_dump_json())
                    continue
                if self._repeats(item.sticker):
                    continue
                item = (item.sticker, (0,))
            experiences.append(self._experience(*item))
        told = Counter(what for trial in self.trials for what in _told(trial)) if checked else Counter[str]()
        return Distilled(
            trajectory=self.trajectory.id,
            experiences=tuple(experiences),
            rejections=tuple(self._rejections),
            stickers=dict(sorted(told.items())),
        )

    def _draft(self, draft: Draft, shown: Sequence[Experience]) -> None:
        known = self._known(draft, shown)
        if known is not None:
            if not self._repeats(known[0]):
                self._taken.append(known)
            return
        try:
            content, steps = founded(draft, self.trajectory, self.verdict)
        except Unfounded as error:
            self.refuse(kind_of(draft), str(error), draft.model_dump_json())
            return
        if self._repeats(content):
            return
        if isinstance(content, Sticker):
            trial = Trial(content, self.trajectory, self.verdict)
            self.trials.append(trial)
            self._taken.append(trial)
        else:
            self._taken.append((content, steps))

    def _known(self, draft: Draft, shown: Sequence[Experience]) -> tuple[Content, tuple[int, ...]] | None:
        """The existing content that a draft says it repeats, if there is one and this trajectory bears it out too."""
        if draft.same_as is None or not 1 <= draft.same_as <= len(shown):
            return None
        content = shown[draft.same_as - 1].content
        if content.kind != kind_of(draft) or (content.kind == "guardrail") == self.trajectory.success:
            return None
        try:
            return content, borne_out(content, self.trajectory, self.verdict)
        except Unfounded:
            return None

    def _repeats(self, content: Content) -> bool:
        """Whether it says what only the judge was told, or again what memory told the agent; the rejection does not
        repeat it."""
        if repeats(content, self.trajectory.shown):
            self.refuse(content.kind, "an experience that was recalled from memory")
            return True
        if self.hint is None or not overlaps(_text(content), self.hint, _public(self.trajectory)):
            return False
        self.refuse(content.kind, "an experience that repeats the judge's hint")
        return True

    def _experience(self, content: Content, steps: tuple[int, ...]) -> Experience:
        trajectory, mistake = self.trajectory, content.kind == "guardrail"
        return Experience(
            tenant=trajectory.tenant,
            environment=trajectory.task.environment,
            family=trajectory.task.family,
            goal=goal_template(trajectory.goal),
            content=content,
            sources=(Source(trajectory=trajectory.id, task=trajectory.task.id, steps=steps, origin=trajectory.origin),),
            author=self.author,
            verbatim=trajectory.steps[steps[0]].meaning if mistake else trajectory.goal,
        )


def _text(content: Content) -> str:
    """All that an experience says, part by part."""
    parts = content.model_dump(exclude={"kind"}).values()
    return "\n".join("\n".join(part) if isinstance(part, tuple) else str(part) for part in parts)


def _public(trajectory: Trajectory) -> str:
    """What its actor could see or say."""
    lines = [trajectory.goal, trajectory.system, *map(signature, trajectory.tools)]
    for step in trajectory.steps:
        lines += [step.observation, *step.notes, step.reply, step.meaning, step.diagnosis.evidence, step.after]
    return "\n".join(lines)
