"""The judge, extract and consolidate steps of a cycle, over the functions of `tutelage.agents`."""

from collections.abc import Mapping, Sequence

from tutelage.agents.distiller import Distilled
from tutelage.agents.extraction import extract as extract_experiences
from tutelage.agents.extraction import judge_missing
from tutelage.agents.review import tells
from tutelage.consolidating import consolidate_memory, counts
from tutelage.cycle import (
    GUARDED,
    UNGUARDED,
    accepted_trajectories,
    experience_trajectories,
    run_and_record,
    task_block,
)
from tutelage.design_store import hint_of
from tutelage.designs import Hint
from tutelage.experience import IN_USE, Kind, Status
from tutelage.memory.trust import vouched_for
from tutelage.progress import Reporter
from tutelage.stats import compare, rate
from tutelage.types import BROKEN, Split, Trajectory, Verdict
from tutelage.workspace import Workspace

DISTILLED = "distilled"
"""Kind of the documents that keep what each trajectory gave until its extraction is complete, and after."""
VOUCHED, OTHERS = "vouched for", "others"
"""Parts of an extraction, in their order."""
KINDS: tuple[Kind, ...] = ("sticker", "skill", "guardrail")


def judge(workspace: Workspace, cycle: int, report: Reporter) -> None:
    """Judge every trajectory that may feed memory and has no verdict yet."""
    usable = [item for item in experience_trajectories(workspace) if item.ending not in BROKEN]
    verdicts = {verdict.trajectory: verdict for verdict in workspace.record.verdicts()}
    done = sum(item.id in verdicts for item in usable)

    def keep(verdict: Verdict) -> None:
        nonlocal done
        done += 1
        workspace.record.add_verdict(verdict)
        report("judged", done, len(usable))

    llm, votes = workspace.llm("judge"), workspace.config.teacher.votes
    judge_missing(usable, verdicts, llm, keep, hints=_hints(workspace, usable), votes=votes)
    checked = [item for item in usable if not item.live]  # of the others the judge's word is all there is
    told = [item for item in checked if item.id in verdicts and tells(verdicts[item.id])]
    agree = sum(verdicts[item.id].successful == item.success for item in told)
    report.say(f"  the judge agrees with the environment's own check on {agree} of {len(told)}")
    if len(told) < len(checked):
        report.say(f"  it cannot tell for {len(checked) - len(told)}")


def extract(workspace: Workspace, cycle: int, report: Reporter) -> None:
    """Distil the judged trajectories that no earlier extraction has looked at; experiences are admitted all at once.

    Those that it leaves for a later one are not marked as looked at. Conversations of callers who are not trusted come
    second, by themselves: no guardrail is refused or borne out by what they say, except their own.
    """
    record = workspace.record
    done = record.get("extraction", str(cycle)) or {"left": [VOUCHED, OTHERS]}
    for part in done.get("left", ()):
        _extract_part(workspace, cycle, vouched=part == VOUCHED)
    body = record.get("extraction", str(cycle))
    assert body is not None, "the extraction was just stored"
    for what, count in body["funnel"]:
        report.say(f"  {what}: {count}")


def _extract_part(workspace: Workspace, cycle: int, *, vouched: bool) -> None:
    """Distil what is vouched for, or the rest, and add it to what is kept of the cycle's extraction."""
    record = workspace.record
    earlier = {item for body in record.items("extraction").values() for item in body["trajectories"]}
    every = [item for item in experience_trajectories(workspace) if item.id not in earlier]
    fresh = [item for item in every if vouched_for(item, workspace.trust) is vouched]
    if not fresh and not vouched:
        _add_to(workspace, cycle, {}, [], left=[])
        return
    existing = [item for item in workspace.memory.experiences() if item.status is not Status.QUARANTINED]
    found = extract_experiences(
        fresh,
        {verdict.trajectory: verdict for verdict in record.verdicts()},
        distiller_llm=workspace.llm("distiller"),
        accepted=[
            item for item in accepted_trajectories(workspace) if not vouched or vouched_for(item, workspace.trust)
        ],
        existing=existing,
        shown=[item for item in existing if item.trust >= workspace.trust.threshold],
        per_family=workspace.config.memory.distil_per_family,
        distilled={
            item.id: Distilled.model_validate(body)
            for item in fresh
            if (body := record.get(DISTILLED, item.id)) is not None
        },
        on_distilled=lambda made: record.put(DISTILLED, made.trajectory, made.model_dump(mode="json")),
        hints=_hints(workspace, fresh),
        rounds=workspace.config.teacher.sticker_rounds,
        evidence=workspace.config.evidence,
    )
    left = frozenset(found.left)
    with record.transaction():
        for experience in found.experiences:
            workspace.memory.add(experience)
        looked_at = [item.id for item in fresh if item.id not in left]
        _add_to(workspace, cycle, found.funnel, looked_at, left=[OTHERS] if vouched else [])


def _add_to(
    workspace: Workspace, cycle: int, funnel: Mapping[str, int], trajectories: Sequence[str], *, left: Sequence[str]
) -> None:
    """Note what a part of a cycle's extraction has brought, and which parts are left."""
    known = workspace.record.get("extraction", str(cycle)) or {"funnel": [], "trajectories": []}
    counts = dict(known["funnel"])
    for what, count in funnel.items():
        counts[what] = counts.get(what, 0) + count
    body = {"funnel": list(counts.items()), "trajectories": [*known["trajectories"], *trajectories], "left": [*left]}
    workspace.record.put("extraction", str(cycle), body)


def consolidate(workspace: Workspace, cycle: int, report: Reporter) -> None:
    """Merge what says the same, surface contradictions, keep to the capacity; and see in live episodes what the
    guardrails stop."""
    counted = counts(consolidate_memory(workspace, cycle=cycle))
    report.say(
        f"  {counted['near pairs']} near pairs: {counted['merged']} merged, {counted['contradictions']} contradictions "
        f"({counted['resolved']} resolved); {counted['retired']} retired for room"
    )
    stats = workspace.memory.stats()
    report.say(f"  memory: {', '.join(f'{count} {kind}s' for kind, count in stats['by_kind'].items()) or 'empty'}")
    plan = workspace.config.collect
    if plan.guarded == 0 or not workspace.memory.experiences(kind="guardrail", statuses=IN_USE):
        return
    start = plan.demonstrations + plan.oracle + plan.mistaken + plan.explored
    block = task_block(workspace, Split.TRAIN, cycle, start, plan.guarded)
    tasks = [task for task in block if task.environment in workspace.taught.names]
    for arm, memory in ((UNGUARDED, None), (GUARDED, workspace.memory)):
        run_and_record(workspace, tasks, workspace.clumsy_teacher(), arm=arm, cycle=cycle, report=report, memory=memory)
    without, guarded = (_of(workspace, arm, cycle) for arm in (UNGUARDED, GUARDED))
    stopped = sum(step.blocked_by is not None for item in guarded.values() for step in item.steps)
    both = [task for task in without if task in guarded]
    found = compare([without[task].success for task in both], [guarded[task].success for task in both])
    body = {
        "without": rate(sum(item.success for item in without.values()), len(without)).model_dump(),
        "with": rate(sum(item.success for item in guarded.values()), len(guarded)).model_dump(),
        "comparison": found.model_dump(),
        "blocked": stopped,
    }
    workspace.record.put("guardrails", str(cycle), body)
    before, after = (sum(arm[task].success for task in both) for arm in (without, guarded))
    report.say(
        f"  clumsy expert (scripted): {before}/{len(both)} solved without guardrails, {after}/{len(both)} with them; "
        f"{stopped} actions blocked"
    )


def _hints(workspace: Workspace, trajectories: Sequence[Trajectory]) -> dict[str, Hint]:
    """What the designers of tasks tell their judge, by trajectory id."""
    found = ((item.id, hint_of(workspace.record, item.task)) for item in trajectories)
    return {trajectory: hint for trajectory, hint in found if hint is not None}


def _of(workspace: Workspace, arm: str, cycle: int) -> dict[str, Trajectory]:
    found = workspace.record.trajectories(arm=arm, cycle=cycle)
    return {item.task.id: item for item in found if item.ending not in BROKEN}
