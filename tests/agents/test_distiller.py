"""Distilling: real experiences from real episodes, and nothing that the episodes do not bear out."""

import json
from collections.abc import Sequence

import pytest

from tutelage.agents.distiller import distil
from tutelage.agents.extraction import Extraction, extract
from tutelage.agents.graph import run_episodes
from tutelage.agents.guard import forbids
from tutelage.agents.judge import judge
from tutelage.agents.llm_policy import LLMPolicy
from tutelage.agents.mistakes import Mistaken
from tutelage.config import ActConfig
from tutelage.environments.toy import Toy
from tutelage.llm import LLM
from tutelage.patterns import matches
from tutelage.types import Cause, Guardrail, Message, Recall, Skill, Split, Status, Task, Trajectory, Verdict


class Says(LLM):
    """A model that always answers the same."""

    def __init__(self, **reply: object) -> None:
        super().__init__("expert/toy", role="distiller")
        self.text = json.dumps(reply)

    def _answer(self, messages: Sequence[Message]) -> str:
        return self.text


@pytest.fixture(scope="module")
def llm() -> LLM:
    return LLM("expert/toy", role="distiller")


@pytest.fixture(scope="module")
def extraction(toy_episodes: list[Trajectory], llm: LLM) -> Extraction:
    return extract(toy_episodes, judge_llm=llm, distiller_llm=llm, per_family=8)


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
        assert item.status is Status.ACTIVE
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
    assert max(len(item.sources) for item in skills) > 1
    assert funnel["active skills"] == len(skills) < funnel["skill candidates"]


def test_extracting_again_says_nothing_new(extraction: Extraction, toy_episodes: list[Trajectory], llm: LLM) -> None:
    again = extract(
        toy_episodes,
        judge_llm=Says(never="asked"),
        distiller_llm=llm,
        verdicts={item.trajectory: item for item in extraction.verdicts},
        existing=extraction.experiences,
        per_family=8,
    )
    assert (again.verdicts, again.experiences) == ((), ())
    more = extract(toy_episodes, judge_llm=llm, distiller_llm=llm, existing=extraction.experiences[:1], per_family=1)
    assert extraction.experiences[0].id not in {item.id for item in more.experiences}


def test_only_the_train_split_is_distilled(toy_episodes: list[Trajectory], llm: LLM) -> None:
    task = toy_episodes[0].task.model_copy(update={"split": Split.TEST})
    held_out = toy_episodes[0].model_copy(update={"task": task})
    assert extract([held_out], judge_llm=llm, distiller_llm=llm).funnel["usable"] == 0


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


def test_a_guardrail_that_would_stop_a_right_step_is_refused(toy_episodes: list[Trajectory], llm: LLM) -> None:
    broad = Says(guardrails=[rule('*button "submit"*', forbidden='click(button "submit")')])
    result = extract(toy_episodes, judge_llm=llm, distiller_llm=broad)
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
