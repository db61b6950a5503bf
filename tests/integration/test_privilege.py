"""Who sees what, over a whole cycle: strings planted in every privileged field turn up nowhere they must not.

Every prompt is looked at where it is made: requests to language models as they go to LiteLLM, an actor's
conversation as the acting graph hands it out or as the teacher gets it for a correction, the rows that the student is
fine-tuned on, and what SDPO's self-teacher reads. With a provider's model as teacher every request is looked at as it
arrives over HTTP.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import litellm
import pytest

from tutelage import distilling, loop
from tutelage.agents import correction, design_rules, designer, distiller, rules
from tutelage.agents.episode import Episode
from tutelage.agents.experts.exploring import BEFORE
from tutelage.agents.first_thought import THINK
from tutelage.annotation import annotate
from tutelage.config import load_config
from tutelage.designs import DESIGNED, EXPLORED, Hint
from tutelage.environments.base import Outcome
from tutelage.environments.files import Files
from tutelage.progress import Reporter, reporting
from tutelage.training import sdpo, sft
from tutelage.workspace import Workspace

HINT, PERSONA, REASON, EXPERIENCE, REWARD = "zqhint", "zqpersona", "zqreason", "zqexperience", "7.3125"
ACTOR, RECALLING, EXPLORER, ROWS = "actor", "actor with memory", "explorer", "training rows"
SELF_TEACHER = "self-teacher"

ALLOWED = {
    HINT: {"judge"},
    PERSONA: {"persona", "designer", EXPLORER},
    REASON: {"distiller"},
    EXPERIENCE: {"distiller", "modifier", "utiliser", RECALLING, SELF_TEACHER},
    REWARD: set(),
}
"""Which roles may ever see each planted string."""

SETTINGS = {
    "environments.0.name": "files",
    "environments.0.families": '["copy", "move"]',
    "student.weights": "tiny",
    "student.dtype": "float32",
    "student.max_new_tokens": 8,
    "act.max_steps": 3,
    "collect.demonstrations": 3,
    "collect.mistaken": 3,
    "collect.explored": 1,
    "collect.designed": 6,
    "collect.corrected": 2,
    "collect.guarded": 1,
    "teacher.votes": 3,
    "evaluate.episodes": 2,
    "evaluate.between": 0,
    "evaluate.with_memory": 2,
    "evaluate.test": 0,
    "evidence.pairs": 4,
    "stages.0.type": "sft",
    "stages.0.steps": 2,
    "stages.1.type": "grpo",
    "stages.1.steps": 1,
    "stages.1.batch_size": 2,
    "stages.1.group_size": 2,
    "stages.2.type": "sdpo",
    "stages.2.steps": 1,
    "stages.2.batch_size": 2,
    "stages.2.group_size": 2,
}


@dataclass
class Watch:
    """All prompts with the role that they went to."""

    prompts: list[tuple[str, str]] = field(default_factory=list)

    def found(self) -> set[tuple[str, str]]:
        """(planted string, role) of every prompt that has one."""
        return {(canary, role) for role, text in self.prompts for canary in ALLOWED if canary in text}

    def leaks(self) -> set[tuple[str, str]]:
        return {(canary, role) for canary, role in self.found() if role not in ALLOWED[canary]}


def wrapped(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, after: Callable[..., Any]) -> None:
    """Hand what `owner.name` returns, and its arguments, to `after`, which returns what is to be returned."""
    plain = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *args, **kwargs: after(plain(*args, **kwargs), *args, **kwargs))


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Plants the strings and looks at every prompt."""
    watch = Watch()

    def asked(answer: Any, *_: Any, messages: Sequence[dict[str, str]], **__: Any) -> Any:
        first = messages[0]["content"].partition("\n")[0]
        if first.startswith("Role: "):  # an actor's conversation is looked at below, where its memory is known
            watch.prompts.append((first.removeprefix("Role: "), "\n".join(m["content"] for m in messages)))
        return answer

    def acted(context: Any, episode: Episode) -> Any:
        role = EXPLORER if episode.task.family == EXPLORED else RECALLING if episode.memory else ACTOR
        watch.prompts.append((role, "\n".join(message.content for message in context.messages)))
        return context

    def asked_for_correction(context: Any, *_: Any) -> Any:
        watch.prompts.append((ACTOR, "\n".join(message.content for message in context.messages)))
        return context

    def scored(episodes: list[Any], privileged: sdpo.Privileged, *_: Any) -> list[Any]:
        decode = privileged._encoder.tokenizer.decode
        for turn in (turn for episode in episodes for turn in episode.turns):
            watch.prompts += [(SELF_TEACHER, decode(turn.privileged)), (ACTOR, decode(turn.observation))]
        return episodes

    def rows(found: Any, _: Any, encoder: Any, *__: Any, **___: Any) -> Any:
        watch.prompts += [(ROWS, encoder.tokenizer.decode(ids)) for ids in found.dataset["input_ids"]]
        return found

    def described(reply: dict[str, Any], _: str) -> dict[str, Any]:
        people = [{**item, "description": f"{item['description']} {PERSONA}"} for item in reply["personas"]]
        return {**reply, "personas": people}

    def distilled(reply: dict[str, Any], _: str) -> dict[str, Any]:
        stickers = [{**item, "question": f"{item['question']} {EXPERIENCE}"} for item in reply.get("stickers", [])]
        return {**reply, "stickers": stickers}

    def rewarded(outcome: Outcome, *_: Any) -> Outcome:
        won = outcome.reward > 0
        return Outcome(outcome.observation, float(REWARD) if won else 0.0, outcome.terminated, outcome.credit)

    plain = Hint.__init__
    monkeypatch.setattr(Hint, "__init__", lambda self, text: plain(self, f"{text} {HINT}"))
    wrapped(monkeypatch, litellm, "completion", asked)
    wrapped(monkeypatch, Episode, "context", acted)
    wrapped(monkeypatch, correction, "_context", asked_for_correction)
    wrapped(monkeypatch, sdpo.Privileged, "score", scored)
    wrapped(monkeypatch, sft, "sft_rows", rows)
    wrapped(monkeypatch, design_rules, "personas", described)
    wrapped(monkeypatch, rules, "distil", distilled)
    wrapped(monkeypatch, rules, "judge", lambda reply, _: {**reply, "reason": f"{reply['reason']} {REASON}"})
    wrapped(monkeypatch, Files, "invoke", rewarded)
    return watch


def workspace(folder: Path, *settings: str) -> Workspace:
    plain = [f"{key}={value}" for key, value in {**SETTINGS, "workspace": folder}.items()]
    return Workspace(load_config(None, [*plain, *settings]))


def test_a_whole_cycle_shows_every_role_its_own_and_no_more(tmp_path: Path, watch: Watch) -> None:
    with closing(workspace(tmp_path / "w")) as opened, reporting() as report:
        loop.run(opened, "run", report)
        designed = [item for item in opened.record.trajectories(arm=DESIGNED) if item.success]
        goals = {item.goal for item in designed}
    roles = {role for role, _ in watch.prompts}
    assert {"persona", "designer", "judge", "distiller", "modifier", "utiliser", "corrector"} <= roles
    assert {ACTOR, RECALLING, EXPLORER, ROWS, SELF_TEACHER} <= roles
    assert watch.leaks() == set()
    # Each string was there to be seen: what no prompt holds proves nothing.
    assert {(HINT, "judge"), (PERSONA, EXPLORER), (REASON, "distiller"), (EXPERIENCE, RECALLING)} <= watch.found()
    assert designed
    hinted = [text for role, text in watch.prompts if role == "distiller" and any(goal in text for goal in goals)]
    assert hinted
    assert not any(REASON in text for text in hinted), "what a judge with a hint says goes to no distiller"


def test_nothing_that_is_sent_to_a_provider_says_too_much(tmp_path: Path, watch: Watch, expert_server: Any) -> None:
    """With a first thought, which is a request of its own, and corrections."""
    settings = ("teacher.model=openai/files-expert", "teacher.tools=text", "teacher.first_thought=true")
    plain = expert_server.reply

    def reply(request: dict[str, Any]) -> Any:
        texts = [str(message["content"]) for message in request["messages"]]
        role = texts[0].partition("\n")[0].removeprefix("Role: ")
        if not texts[0].startswith("Role: "):
            role = EXPLORER if BEFORE in texts[1] else ACTOR
        watch.prompts.append((role, "\n".join(texts)))
        return "First I look." if texts[0] == THINK else plain(request)

    expert_server.reply = reply
    with closing(workspace(tmp_path / "w", "annotate.trust_judge=true", *settings)) as opened:
        found = annotate(opened, "one", 4, Reporter(None))
        assert len(found.accepted) == 4
        assert any("First I look." in item.steps[0].reply for item in opened.record.trajectories(arm=DESIGNED))
    assert any(THINK in text for _, text in watch.prompts)
    assert watch.leaks() == set()


def leak_to_actor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment shows the hint to whoever acts."""

    def start(found: tuple[str, str], *_: Any) -> tuple[str, str]:
        return found[0], f"{found[1]}\n{Hint('the answer').reveal()}"

    wrapped(monkeypatch, Files, "start", start)


def leak_to_annotator(monkeypatch: pytest.MonkeyPatch) -> None:
    """The persona slips into the goal."""
    wrapped(monkeypatch, designer, "substituted", lambda text, *_: f"{text} {PERSONA}")


def leak_to_distiller(monkeypatch: pytest.MonkeyPatch) -> None:
    """The distiller is told what a judge with a hint said."""
    wrapped(monkeypatch, distiller, "distiller_view", lambda view, *_: replace(view, reason=Hint("it").reveal()))


@pytest.mark.parametrize(
    ("leak", "found"),
    [
        (leak_to_actor, (HINT, ACTOR)),
        (leak_to_annotator, (PERSONA, ACTOR)),
        (leak_to_distiller, (HINT, "distiller")),
    ],
)
def test_a_planted_leak_is_found(
    tmp_path: Path,
    watch: Watch,
    monkeypatch: pytest.MonkeyPatch,
    leak: Callable[[pytest.MonkeyPatch], None],
    found: tuple[str, str],
) -> None:
    leak(monkeypatch)
    with closing(workspace(tmp_path / "w")) as opened, reporting() as report:
        annotate(opened, "leaky", 2, report)
        distilling.extract(opened, 1, report)
    assert found in watch.leaks()
