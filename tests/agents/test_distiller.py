"""Distilling: real experiences from real episodes, and nothing that the episodes do not bear out."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tutelage.agents.distiller import Distilled, Rejection, distil, distil_many
from tutelage.agents.drafts import MAX_DRAFTS, MAX_LINE, MAX_LINES, GuardrailDraft, SkillDraft, StickerDraft
from tutelage.agents.extraction import Extraction, extract
from tutelage.agents.graph import run_episodes
from tutelage.agents.guard import forbids
from tutelage.agents.judge import judge, judge_many
from tutelage.agents.llm_policy import LLMPolicy
from tutelage.agents.mistakes import Mistaken
from tutelage.config import ActConfig, BudgetConfig
from tutelage.designs import DESIGNED, Hint
from tutelage.environments.toy import Toy
from tutelage.errors import BudgetSpent, PolicyFailed, TutelageError
from tutelage.experience import Experience, Guardrail, Recall, Skill, Status
from tutelage.llm import LLM
from tutelage.patterns import matches
from tutelage.types import Cause, Message, Split, Task, Trajectory, Verdict


class Says(LLM):
    """A model that always answers the same."""

    def __init__(self, **reply: object) -> None:
        super().__init__("expert/toy", role="distiller")
        self.text = json.dumps(reply)

        self.heard: list[str] = []

    def _answer(self, messages: Sequence[Message], **options: Any) -> str:
        self.heard.append("\n".join(message.content for message in messages))
        return self.text


@pytest.fixture(scope="module")
def llm() -> LLM:
    return LLM("expert/toy", role="distiller")


@pytest.fixture(scope="module")
def verdicts(toy_episodes: list[Trajectory], llm: LLM) -> dict[str, Verdict]:
    return {item.trajectory: item for item in judge_many(toy_episodes, llm) if isinstance(item, Verdict)}


@pytest.fixture(scope="module")
def extraction(toy_episodes: list[Trajectory], verdicts: dict[str, Verdict], llm: LLM) -> Extraction:
    return extract(toy_episodes, verdicts, distiller_llm=llm, per_family=8)


@pytest.fixture(scope="module")
def early(toy_episodes: list[Trajectory], llm: LLM) -> tuple[Trajectory, Verdict]:
    """An episode that failed by submitting too early."""
    failed = [item for item in toy_episodes if not item.success]
    episode = next(item for item in failed if item.steps[-1].meaning == 'click(button "submit")')
    return episode, judge(episode, llm)


def rule(*trigger: str, forbidden: str) -> dict[str, object]:
    return {"trigger": list(trigger), "root_cause": "Too early.", "forbidden": forbidden, "remedy": "Wait."}


def test_every_kind_comes_out_and_leads_back_to_its_steps(
    extraction: Extraction, toy_episodes: list[Trajectory]
) -> None:
    episodes = {item.id: item for item in toy_episodes}
    assert {item.kind for item in extraction.experiences} == {"sticker", "skill", "guardrail"}
    for item in extraction.experiences:
        assert item.change.reason
        assert item.status is Status.CANDIDATE or item.kind == "guardrail"
        assert "(scripted)" in item.author
        for source in item.sources:
            episode = episodes[source.trajectory]
            assert (source.task, episode.success) == (episode.task.id, item.kind != "guardrail")
            steps = [episode.steps[index] for index in source.steps]
            if isinstance(item.content, Guardrail):
                assert all(forbids([item], step.meaning, step.observation, episode.goal) for step in steps)
            if isinstance(item.content, Skill):
                meanings = [step.meaning for step in steps]
                assert all(any(matches(p, m, episode.goal) for m in meanings) for p in item.content.procedure)


def test_equal_experiences_are_united_and_the_funnel_adds_up(extraction: Extraction) -> None:
    funnel, skills = extraction.funnel, [item for item in extraction.experiences if item.kind == "skill"]
    assert funnel["judged"] == funnel["usable"] == funnel["trajectories"] == 48
    assert funnel["not judged"] == funnel["left for a later extraction"] == 0
    assert max(len(item.sources) for item in skills) > 1
    assert funnel["admitted skills"] == len(skills) < funnel["skill candidates"]


def test_extracting_again_says_nothing_new(
    extraction: Extraction, toy_episodes: list[Trajectory], verdicts: dict[str, Verdict], llm: LLM
) -> None:
    again = extract(toy_episodes, verdicts, distiller_llm=llm, existing=extraction.experiences, per_family=8)
    assert again.experiences == ()
    more = extract(toy_episodes, verdicts, distiller_llm=llm, existing=extraction.experiences[:1], per_family=1)
    assert extraction.experiences[0].id not in {item.id for item in more.experiences}


def test_a_trajectory_without_a_verdict_is_left_for_a_later_extraction(
    toy_episodes: list[Trajectory], verdicts: dict[str, Verdict], llm: LLM
) -> None:
    first = toy_episodes[0].id
    known = {key: verdict for key, verdict in verdicts.items() if key != first}
    found = extract(toy_episodes, known, distiller_llm=llm, per_family=8)
    assert (found.funnel["not judged"], found.left) == (1, (first,))
    assert not any(source.trajectory == first for item in found.experiences for source in item.sources)


def test_designed_tasks_that_there_was_no_room_for_are_all_distilled_in_the_end(
    toy_episodes: list[Trajectory], verdicts: dict[str, Verdict], llm: LLM
) -> None:
    """Each is a task of its own; of a family that is drawn, those that were chosen stand for the others."""

    def designed(item: Trajectory) -> Trajectory:
        return item.model_copy(update={"task": item.task.model_copy(update={"family": DESIGNED})})

    assert extract(toy_episodes, verdicts, distiller_llm=llm, per_family=2).left == ()
    waiting, sizes = [designed(item) for item in toy_episodes], []
    while waiting:
        found = extract(waiting, verdicts, distiller_llm=llm, per_family=10)
        sizes.append(found.funnel["distilled"])
        assert found.funnel["left for a later extraction"] == len(found.left) == len(waiting) - sizes[-1]
        waiting = [item for item in waiting if item.id in found.left]
    assert sizes[0] == 20
    assert sum(sizes) == len(toy_episodes)


def test_a_budget_spent_in_the_middle_loses_nothing_that_was_paid_for(
    extraction: Extraction, toy_episodes: list[Trajectory], verdicts: dict[str, Verdict]
) -> None:
    made: dict[str, Distilled] = {}
    calls, stops = 0, 0
    while True:
        poor = LLM("expert/toy", role="distiller", budget=BudgetConfig(calls=5))
        try:
            found = extract(
                toy_episodes,
                verdicts,
                distiller_llm=poor,
                distilled=made,
                on_distilled=lambda item: made.update({item.trajectory: item}),
                per_family=8,
            )
        except BudgetSpent:
            stops += 1
            calls += poor.usage.total().calls
        else:
            calls += poor.usage.total().calls
            break
    assert stops > 2
    assert calls <= found.funnel["distilled"], "nothing was asked for twice"
    assert [item.content for item in found.experiences] == [item.content for item in extraction.experiences]


def test_only_the_train_split_is_distilled(toy_episodes: list[Trajectory], llm: LLM) -> None:
    task = toy_episodes[0].task.model_copy(update={"split": Split.TEST})
    held_out = toy_episodes[0].model_copy(update={"task": task})
    assert extract([held_out], {}, distiller_llm=llm).funnel["usable"] == 0


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ({"skills": [{"procedure": ['click(button "launch")']}]}, "a skill names an action that did not occur"),
        ({"skills": [{"procedure": ["*"]}]}, "a skill names an action that did not occur"),
        ({"skills": [{"procedure": []}]}, "a skill without a procedure"),
        ({"stickers": [{"conditions": [" "], "question": "?"}]}, "a sticker without conditions or question"),
        ({"guardrails": [rule(forbidden="*")]}, "this kind does not come from this outcome"),
        ({"note": "nothing new"}, "the distiller found nothing to say"),
    ],
)
def test_what_a_success_does_not_bear_out_is_dropped(
    toy_episodes: list[Trajectory], reply: dict[str, object], reason: str
) -> None:
    episode = next(item for item in toy_episodes if item.success)
    verdict = Verdict(trajectory=episode.id, judge="test", successful=True, reason="It ended as it should.")
    experiences, rejections = distil(episode, verdict, (), Says(**reply))
    assert (experiences, [item.reason for item in rejections]) == ([], [reason])


@pytest.mark.parametrize(
    ("guardrail", "reason"),
    [
        (rule("*dialog*", forbidden='click(button "submit")'), "would not have stopped the cited mistake"),
        (rule(forbidden='click(button "{other}")'), "would not have stopped the cited mistake"),
        (rule("*{goal}", forbidden='click(button "submit")'), "unusable pattern"),
        ({**rule(forbidden='click(button "submit")'), "remedy": ""}, "without root cause or remedy"),
    ],
)
def test_a_guardrail_must_stop_the_cited_mistake(
    early: tuple[Trajectory, Verdict], guardrail: dict[str, object], reason: str
) -> None:
    experiences, (rejection,) = distil(*early, (), Says(guardrails=[guardrail]))
    assert not experiences
    assert reason in rejection.reason


def test_a_guardrail_that_would_stop_a_right_step_is_refused(
    toy_episodes: list[Trajectory], verdicts: dict[str, Verdict]
) -> None:
    broad = Says(guardrails=[rule('*button "submit"*', forbidden='click(button "submit")')])
    result = extract(toy_episodes, verdicts, distiller_llm=broad)
    assert not result.experiences
    assert result.funnel["rejected: a guardrail that would stop a right step"] > 0


def test_without_citations_a_failure_teaches_nothing(early: tuple[Trajectory, Verdict], llm: LLM) -> None:
    episode, verdict = early
    experiences, (rejection,) = distil(episode, verdict.model_copy(update={"cited": ()}), (), llm)
    assert not experiences
    assert rejection.reason == "the judge cites no mistake"


def test_extracted_guardrails_stop_mistakes_on_other_tasks(extraction: Extraction, llm: LLM) -> None:
    class Rules:
        def recall(self, task: Task, goal: str, observation: str) -> Recall:
            rules = [item for item in extraction.experiences if (item.kind, item.family) == ("guardrail", task.family)]
            return Recall(guardrails=tuple(rules))

    tasks, act = Toy.tasks(Split.TRAIN, count=6, start=500), ActConfig(width=4)
    policy = Mistaken(LLMPolicy(llm), rate=0.5, seed=2)
    without = run_episodes(tasks, policy, lambda _: Toy(), act=act)
    guarded = run_episodes(tasks, policy, lambda _: Toy(), act=act, memory=Rules())
    blocked = [step for item in guarded for step in item.steps if step.blocked_by]
    assert blocked
    assert all(step.diagnosis.cause is Cause.BLOCKED and step.after == step.observation for step in blocked)
    assert sum(item.success for item in guarded) > sum(item.success for item in without)


# -- what a model may write -----------------------------------------------------------------------

STICKER = {"conditions": ["The goal names a button."], "question": "Which button is it?"}
PRESS = {"procedure": ['click(button "{goal}")']}


@pytest.fixture(scope="module")
def press(toy_episodes: list[Trajectory]) -> tuple[Trajectory, Verdict]:
    """An episode that succeeded with one click on a button."""
    episode = next(item for item in toy_episodes if item.task.family == "press" and item.success)
    return episode, Verdict(trajectory=episode.id, judge="test", successful=True, reason="Right.")


@pytest.mark.parametrize(
    ("bad", "reason", "count"),
    [
        ([3], "a draft of the wrong form", 1),
        ([{"conditions": "one"}, {"question": ["?"], "conditions": ["c"]}], "a draft of the wrong form", 2),
        ([{"conditions": ["c" * (MAX_LINE + 1)], "question": "?"}], "a draft that is too long", 1),
        ([{"conditions": ["c"] * (MAX_LINES + 1), "question": "?"}], "a draft that is too long", 1),
        ([STICKER] * (MAX_DRAFTS + 3), "more drafts of a kind than are looked at", 4),
    ],
)
def test_a_bad_draft_does_not_lose_the_good_ones(
    press: tuple[Trajectory, Verdict], bad: list[object], reason: str, count: int
) -> None:
    experiences, rejections = distil(*press, (), Says(stickers=[STICKER, *bad], skills=PRESS, guardrails=None))
    assert {item.kind for item in experiences} == {"sticker", "skill"}
    assert [item.reason for item in rejections] == [reason] * count


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["*", "{goal}", "click(*)"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from([name for kind in (StickerDraft, SkillDraft, GuardrailDraft) for name in kind.model_fields])
DRAFTS = JSON | st.lists(st.dictionaries(FIELDS, JSON | st.lists(st.text(), max_size=3) | st.text(), max_size=6))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(reply=st.fixed_dictionaries({}, optional=dict.fromkeys(["stickers", "skills", "guardrails", "note"], DRAFTS)))
def test_whatever_a_model_writes_becomes_experiences_or_counted_rejections(
    press: tuple[Trajectory, Verdict], early: tuple[Trajectory, Verdict], reply: dict[str, object]
) -> None:
    llm = Says(**reply)
    known = stored(press, stickers=[STICKER], skills=[PRESS])
    for result in distil_many([press, early], known, llm):
        if isinstance(result, TutelageError):
            assert isinstance(result, PolicyFailed)  # not one readable draft
            continue
        experiences, rejections = result.experiences, result.rejections
        assert len(experiences) + len(rejections) > 0
        assert all(isinstance(item, Experience) for item in experiences)
        assert all(isinstance(item, Rejection) and item.reason for item in rejections)


# -- what exists already --------------------------------------------------------------------------


def stored(press: tuple[Trajectory, Verdict], **reply: object) -> list[Experience]:
    """Experiences as they would be there from an earlier trajectory of the family."""
    episode, verdict = press
    earlier = episode.model_copy(update={"id": "trj_earlier"})
    return [
        item.model_copy(update={"status": Status.ACTIVE})
        for item in distil(earlier, verdict.model_copy(update={"trajectory": "trj_earlier"}), (), Says(**reply))[0]
    ]


@pytest.mark.parametrize(("kind", "number"), [("stickers", 1), ("skills", 2)])
def test_a_draft_may_name_the_existing_experience_that_says_it(
    press: tuple[Trajectory, Verdict], kind: str, number: int
) -> None:
    old = stored(press, stickers=[STICKER], skills=[PRESS])
    says = Says(**{kind: [{"same_as": number}]})
    found = extract([press[0]], {press[0].id: press[1]}, distiller_llm=says, existing=old)
    (new,) = found.experiences
    assert f"\n{number}: {old[number - 1].content.model_dump_json()}\n" in says.heard[0]
    assert (new.id, new.version, new.content) == (old[number - 1].id, 2, old[number - 1].content)
    assert [source.trajectory for source in new.sources] == ["trj_earlier", press[0].id]
    assert found.funnel["existing ones that gained a source"] == 1


@pytest.mark.parametrize("number", [0, -1, 3, 10**30, "1", True, None, [1], 1.5, 2])
def test_a_number_of_nothing_of_that_kind_leaves_a_new_draft(press: tuple[Trajectory, Verdict], number: object) -> None:
    old = stored(press, stickers=[STICKER], skills=[PRESS])
    other = {"conditions": ["Buttons are there."], "question": "Which one?", "same_as": number}
    (new,), _ = distil(*press, old, Says(stickers=[other]))
    assert new.content.model_dump()["conditions"] == ("Buttons are there.",)


def test_an_existing_experience_that_the_episode_does_not_bear_out_gains_nothing(
    press: tuple[Trajectory, Verdict],
) -> None:
    (old,) = stored(press, skills=[PRESS])
    untrue = old.model_copy(
        update={"content": Skill(preconditions=(), procedure=('click(button "x")',), verification=())}
    )
    experiences, (rejection,) = distil(*press, [untrue], Says(skills=[{"same_as": 1}]))
    assert (experiences, rejection.reason) == ([], "a skill without a procedure")


# -- what only the judge was told -----------------------------------------------------------------


def test_nothing_that_repeats_the_hint_is_taken_and_the_hint_is_told_to_nobody(
    press: tuple[Trajectory, Verdict],
) -> None:
    secret = "the lamp in the cellar must be off, code ZX-44W1"  # W: no id has one by chance
    leaks = [
        {**STICKER, "conditions": ["The lamp in the cellar is there."]},
        {**STICKER, "question": "What has the code zx-44w1?"},
        STICKER,
    ]
    episode, verdict = press
    hinted = verdict.model_copy(update={"hinted": True, "reason": f"It is done: {secret}"})
    says = Says(stickers=leaks)
    result = distil_many([(episode, hinted)], (), says, hints={episode.id: Hint(secret)})[0]
    assert not isinstance(result, TutelageError)
    experiences, rejections = result.experiences, result.rejections
    assert [item.content.model_dump()["conditions"] for item in experiences] == [tuple(STICKER["conditions"])]
    assert [item.reason for item in rejections] == ["an experience that repeats the judge's hint"] * 2
    told = [text.lower() for text in (*says.heard, *map(str, rejections))]
    assert not [text for text in told if "lamp" in text or "44w1" in text]
    assert len(distil(*press, (), Says(stickers=leaks))[0]) == 3  # without the hint nothing tells that they leak
