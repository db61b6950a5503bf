"""From judged trajectories to experiences: accept, distil, unite, admit.

The environment's programmatic check accepts; the verdict is stored beside it. Stickers and skills that an accepted
trajectory bears out are admitted on trial: whether they help is measured later (`tutelage.evidence`). A guardrail is
measured at once, by replay of what is recorded, and is active only if it stops a recorded mistake and next to no
right step (`tutelage.agents.replay`).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tutelage.agents.distiller import Distilled, Rejection, distil_many
from tutelage.agents.judge import judge_many
from tutelage.agents.replay import graded, replayed, standing
from tutelage.agents.review import tells
from tutelage.completion import AttemptFailed
from tutelage.config import EvidenceConfig
from tutelage.designs import DESIGNED, Hint
from tutelage.errors import BudgetSpent, TutelageError
from tutelage.experience import IN_USE, Change, Experience, Guardrail, Status, identity, stand_ins
from tutelage.llm import LLM
from tutelage.types import BROKEN, Split, Trajectory, Verdict

BATCH = 16
"""Trajectories judged, or distilled, between two reports of what came of them."""
EXTRACTION = "extraction"
"""What a change made here names as its maker."""


@dataclass(frozen=True)
class Extraction:
    """What came out, and how much was lost where."""

    experiences: tuple[Experience, ...]
    """New experiences, and new versions of existing ones that gained sources."""
    rejections: tuple[Rejection, ...]
    funnel: dict[str, int]
    """How many there were at each point; ``rejected: REASON`` counts what was dropped."""
    left: tuple[str, ...] = ()
    """Ids of the trajectories that a later extraction should look at again."""


def extract(
    trajectories: Sequence[Trajectory],
    verdicts: Mapping[str, Verdict],
    *,
    distiller_llm: LLM,
    accepted: Sequence[Trajectory] = (),
    existing: Sequence[Experience] = (),
    shown: Sequence[Experience] | None = None,
    per_family: int = 4,
    distilled: Mapping[str, Distilled] | None = None,
    on_distilled: Callable[[Distilled], object] | None = None,
    hints: Mapping[str, Hint] | None = None,
    rounds: int = 0,
    evidence: EvidenceConfig | None = None,
) -> Extraction:
    """Extract experiences from trajectories of the train split; others are counted and left alone.

    A family's tasks are variations of one: `per_family` of them stand for the others, which are not looked at again.
    Designed tasks are each different: those for which there was no room are left, and so is what has no verdict.

    Args:
        verdicts: by trajectory id.
        accepted: further accepted trajectories that guardrails must not get in the way of.
        existing: latest versions of the experiences there are.
        shown: those of them that the distiller may see and say again; default: all.
        per_family: successes and failures distilled per family at most, of each.
        distilled: what an interrupted extraction made, by trajectory id; it is not asked for again.
        on_distilled: is given what each trajectory gave as it comes, so that none is lost.
        hints: what the designer of a task tells its judge, by trajectory id; no experience may repeat it.
        rounds: how often a sticker is repaired and checked by what follows from it, at most.
        evidence: what a guardrail must show in replay.

    Raises:
        BudgetSpent: a limit was reached; what there is so far was delivered through `on_distilled`.
    """
    usable = [item for item in trajectories if item.task.split is Split.TRAIN and item.ending not in BROKEN]
    judged = [item for item in usable if item.id in verdicts]
    chosen = _choose(judged, per_family)
    left = _left(usable, judged, chosen)
    made, shown = dict(distilled or {}), existing if shown is None else shown
    failed = _distil_missing(
        [(item, verdicts[item.id]) for item in chosen if item.id not in made],
        made,
        lambda cases: distil_many(cases, shown, distiller_llm, hints=hints, rounds=rounds),
        on_distilled,
    )
    results = [made[item.id] for item in chosen if item.id in made]
    candidates = [experience for result in results for experience in result.experiences]
    united, unchanged = _unite(candidates, existing)
    replayable = _distinct([item for item in (*usable, *accepted) if item.success] + judged)
    admitted, refused = _admit(united, existing, replayable, verdicts, evidence or EvidenceConfig())
    rejections = failed + [rejection for result in results for rejection in result.rejections] + refused
    funnel = {
        "trajectories": len(trajectories),
        **_looked_at(usable, judged, verdicts, len(chosen), len(left)),
        **_came_out(results, admitted, existing, united=len(candidates) - len(united) - unchanged, unchanged=unchanged),
        **{f"rejected: {reason}": n for reason, n in Counter(item.reason for item in rejections).items()},
    }
    return Extraction(tuple(admitted), tuple(rejections), funnel, tuple(left))


def _looked_at(
    usable: Sequence[Trajectory], judged: Sequence[Trajectory], verdicts: Mapping[str, Verdict], chosen: int, left: int
) -> dict[str, int]:
    """The funnel as far as the distiller."""
    told = [item for item in judged if tells(verdicts[item.id]) and not item.live]
    return {
        "usable": len(usable),
        "not judged": len(usable) - len(judged),
        "judged": len(judged),
        "accepted": sum(item.success for item in usable),
        "judge agrees": sum(verdicts[item.id].successful == item.success for item in told),
        "distilled": chosen,
        "left for a later extraction": left,
    }


def _came_out(
    results: Sequence[Distilled],
    admitted: Sequence[Experience],
    existing: Sequence[Experience],
    *,
    united: int,
    unchanged: int,
) -> dict[str, int]:
    """The funnel from what was distilled to what is admitted."""
    stickers = sum((Counter(result.stickers) for result in results), Counter[str]())
    kinds, ids = (item.kind for result in results for item in result.experiences), {item.id for item in existing}
    return {
        **dict(sorted(stickers.items())),
        **{f"{kind} candidates": n for kind, n in Counter(kinds).items()},
        "united": united,
        "unchanged": unchanged,
        "existing ones that gained a source": sum(item.id in ids for item in admitted),
        **{f"admitted {kind}s": n for kind, n in Counter(item.kind for item in admitted).items()},
        "of these active": sum(item.status is Status.ACTIVE for item in admitted),
    }


def judge_missing(
    trajectories: Sequence[Trajectory],
    known: dict[str, Verdict],
    llm: LLM,
    on_verdict: Callable[[Verdict], None],
    *,
    hints: Mapping[str, Hint] | None = None,
    votes: int = 1,
) -> None:
    """Judge those without a verdict and add it to `known`; one without an answer stays unjudged.

    Args:
        on_verdict: is given each new verdict as it comes, so that none is lost.
        hints, votes: as `judge_many` takes them.

    Raises:
        BudgetSpent: a limit was reached; verdicts so far were delivered through `on_verdict`.
        PolicyFailed: the provider cannot be reached: not one call of a whole batch came through.
    """
    missing = [item for item in trajectories if item.id not in known]
    for start in range(0, len(missing), BATCH):
        answers = judge_many(missing[start : start + BATCH], llm, hints=hints, votes=votes)
        for answer in answers:
            if isinstance(answer, Verdict):
                known[answer.trajectory] = answer
                on_verdict(answer)
        _raise_if_spent(answers)
        lost = [answer for answer in answers if isinstance(answer, AttemptFailed) and answer.failure.transient]
        if len(lost) == len(answers):
            raise lost[0]


def _choose(trajectories: Sequence[Trajectory], per_family: int) -> list[Trajectory]:
    """The first `per_family` successes and as many failures of each family."""
    taken: Counter[tuple[str, str, bool]] = Counter()
    chosen = []
    for item in trajectories:
        cell = (item.task.environment, item.task.family, item.success)
        if taken[cell] < per_family:
            taken[cell] += 1
            chosen.append(item)
    return chosen


def _left(usable: Sequence[Trajectory], judged: Sequence[Trajectory], chosen: Sequence[Trajectory]) -> list[str]:
    """Those without a verdict, and the designed ones for which there was no room."""
    known, taken = ({item.id for item in part} for part in (judged, chosen))
    return [
        item.id for item in usable if item.id not in known or (item.task.family == DESIGNED and item.id not in taken)
    ]


def _distil_missing(
    cases: Sequence[tuple[Trajectory, Verdict]],
    made: dict[str, Distilled],
    distil: Callable[[Sequence[tuple[Trajectory, Verdict]]], Sequence[Distilled | TutelageError]],
    on_distilled: Callable[[Distilled], object] | None,
) -> list[Rejection]:
    """Distil the cases and add what comes of each to `made`; returns those that had no answer."""
    failed = []
    for start in range(0, len(cases), BATCH):
        batch = cases[start : start + BATCH]
        answers = distil(batch)
        for (trajectory, _), answer in zip(batch, answers, strict=True):
            if isinstance(answer, Distilled):
                made[trajectory.id] = answer
                if on_distilled is not None:
                    on_distilled(answer)
            else:
                reason = "the distiller did not answer"
                failed.append(Rejection(trajectory=trajectory.id, kind=None, reason=reason, detail=str(answer)))
        _raise_if_spent(answers)
    return failed


def _raise_if_spent(answers: Iterable[object]) -> None:
    for answer in answers:
        if isinstance(answer, BudgetSpent):
            raise answer


def _unite(candidates: Sequence[Experience], existing: Sequence[Experience]) -> tuple[list[Experience], int]:
    """One experience per content and family, with the sources of all; and how many said nothing new.

    An existing one that gains a source becomes a new version; a retired one stays retired. What says the same as one
    that was merged is a source of whoever stands for that.
    """
    united: dict[str, Experience] = {}
    stand = stand_ins(existing)
    before = {identity(item): stand.get(item.id, item) for item in existing}
    unchanged = 0
    for item in candidates:
        key = identity(before.get(identity(item), item))
        old = united.get(key) or before.get(key)
        if old is None:
            united[key] = item
            continue
        sources = old.sources + tuple(source for source in item.sources if source not in old.sources)
        if old.status is Status.RETIRED or sources == old.sources:
            unchanged += 1
            continue
        version = old.version if key in united else old.version + 1
        united[key] = old.model_copy(update={"sources": sources, "version": version})
    return list(united.values()), unchanged


def _admit(
    candidates: Sequence[Experience],
    existing: Sequence[Experience],
    trajectories: Sequence[Trajectory],
    verdicts: Mapping[str, Verdict],
    evidence: EvidenceConfig,
) -> tuple[list[Experience], list[Rejection]]:
    """Stickers and skills on trial, guardrails with the status that replay earns them; and those that it refutes.

    An existing one keeps its status, unless it is a guardrail in use.
    """
    admitted, refused = [], []
    known = {item.id for item in existing}
    for item in candidates:
        if item.id in known:
            item = item.model_copy(update={"change": Change(by=EXTRACTION, reason="further sources")})
        else:
            change = Change(by=EXTRACTION, reason="borne out by an accepted episode; its effect is unmeasured")
            item = item.model_copy(update={"status": Status.CANDIDATE, "change": change})
        if isinstance(item.content, Guardrail) and item.status in IN_USE:
            found = replayed(item, trajectories, verdicts, evidence.confidence)
            made = graded(item, found, evidence, by=EXTRACTION)
            if made is None:
                reason, detail = standing(found, evidence)[1], item.content.model_dump_json()
                source = item.sources[0].trajectory
                refused.append(Rejection(trajectory=source, kind=item.kind, reason=reason, detail=detail))
                continue
            item = made
        admitted.append(item)
    return admitted, refused


def _distinct(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    return list({item.id: item for item in trajectories}.values())
