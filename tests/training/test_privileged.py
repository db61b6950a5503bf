"""What the self-teacher is told: each source by its switch, at its turn, and never to the student."""

from dataclasses import replace

import pytest

from tutelage.corrections import Correction
from tutelage.experience import Recall
from tutelage.stage_config import SdpoConfig
from tutelage.training import weights
from tutelage.training.chat import ChatEncoder
from tutelage.training.privileged import SOURCES, Privileged
from tutelage.training.rollout import Rollouts
from tutelage.types import Ending, Shown

CANARY = "zebra quartz"
NONE = dict.fromkeys(SOURCES, False)
STAGE = SdpoConfig(steps=2, batch_size=4, group_size=2, temperature=0.9)
SAYS = {
    "experiences": f"Mind the {CANARY}.",
    "sibling": "These actions solved this task: ",
    "feedback": "Your next action would lead to this: ",
    "corrections": f"The teacher says: Not so, {CANARY}.",
}


class Memory:
    """Recalls one experience, of any task."""

    def recall(self, task, goal, observation):
        return Recall(shown=(Shown(id="exp_1", version=1, text=SAYS["experiences"]),))


def stage_with(**changed):
    return STAGE.model_copy(update=changed)


def played(context, tokenizer, stage=STAGE):
    """A real batch, the first of its first group declared solved, as a random student solves none."""
    tasks = [task for task in context.tasks[:2] for _ in range(2)]
    episodes = Rollouts(stage, context, tokenizer)(tasks, weights.load("tiny")[0])
    won = episodes[0].trajectory.model_copy(update={"ending": Ending.SOLVED})
    return [replace(episodes[0], trajectory=won, reward=1.0), *episodes[1:]]


def corrections(trajectories):
    """Words on the second action of each episode."""
    right = 'click("r1")'
    return [
        Correction(trajectory=item.id, step=1, reply=right, words=f"Not so, {CANARY}.", author="teacher")
        for item in trajectories
    ]


@pytest.mark.parametrize("source", SOURCES)
def test_each_source_alone(stage_context, source):
    _, tokenizer = weights.load("tiny")
    episodes = played(stage_context(), tokenizer)
    privileged = Privileged(stage_with(**(NONE | {source: True})), Memory(), tokenizer, corrections)
    scored = privileged.score(episodes)
    turns = sum(len(episode.turns) for episode in scored)
    told, spoken_of = set(), 0
    for place, episode in enumerate(scored):
        informed = False
        for index, turn in enumerate(episode.turns):
            view = tokenizer.decode(turn.privileged)
            assert {name for name, text in SAYS.items() if text in view} <= {source}
            assert SAYS[source] not in tokenizer.decode(turn.observation)
            informed = informed or SAYS[source] in view
            told |= {(place, index)} if SAYS[source] in view else set()
            assert turn.informed == informed
            # Experiences and siblings stand in the first turn and speak of all of them.
            spoken_of += informed if source in ("experiences", "sibling") else SAYS[source] in view
    places = {
        "experiences": {(place, 0) for place in range(4)},
        "sibling": {(1, 0)},  # the one that won has nobody to learn from
        "feedback": {(place, index) for place, episode in enumerate(scored) for index in range(len(episode.turns))},
        "corrections": {(place, 1) for place in range(4)},
    }
    assert told == places[source]
    share = {f"informed_{name}": 0.0 for name in SOURCES} | {f"informed_{source}": spoken_of / turns}
    assert privileged.figures == share | ({"corrected": 4.0} if source == "corrections" else {})
    assert list(privileged.used) == (["exp_1"] if source == "experiences" else [])
    assert [episode.won for episode in scored] == [True, False, False, False]


def test_without_any_source_the_teacher_reads_what_the_student_read(stage_context):
    _, tokenizer = weights.load("tiny")
    episodes = played(stage_context(), tokenizer)
    for scored in Privileged(stage_with(**NONE), Memory(), tokenizer, corrections).score(episodes):
        assert not any(turn.informed for turn in scored.turns)
        assert [tuple(turn.privileged) for turn in scored.turns] == [tuple(turn.observation) for turn in scored.turns]


@pytest.mark.parametrize("wanted", [True, False])
def test_an_episode_that_was_shown_experiences_is_scored_without(stage_context, wanted):
    """The student's view is the stripped one that it is trained on; the teacher's is as its own switch says."""
    _, tokenizer = weights.load("tiny")
    context = stage_context(memory=Memory())
    stage = stage_with(**(NONE | {"experiences": wanted}), with_memory=1.0, withdraw=False)
    episodes = played(context, tokenizer, stage)
    assert all(episode.stripped and episode.trajectory.shown for episode in episodes)
    for scored in Privileged(stage, Memory(), tokenizer).score(episodes):
        assert not any(CANARY in tokenizer.decode(turn.observation) for turn in scored.turns)
        assert (CANARY in tokenizer.decode(scored.turns[0].privileged)) == wanted
        same = [tuple(turn.privileged) == tuple(turn.observation) for turn in scored.turns]
        assert all(same) != wanted


def test_of_a_turn_only_the_action_is_distilled_where_the_stage_says_so(stage_context):
    _, tokenizer = weights.load("tiny")
    encoder = ChatEncoder(tokenizer)
    episode = played(stage_context(), tokenizer)[0]
    sampled = tuple(encoder.reply('The red one.\nclick("r1")'))
    turns = tuple(
        turn.model_copy(update={"sampled": sampled, "logprobs": (-1.0,) * len(sampled)}) for turn in episode.turns
    )
    for tokens, expected in (("turn", f'The red one.\nclick("r1"){tokenizer.eos_token}'), ("action", 'click("r1")')):
        (scored,) = Privileged(stage_with(tokens=tokens), None, tokenizer).score([replace(episode, turns=turns)])
        distilled = [token for token, marked in zip(scored.sampled, scored.distilled(), strict=True) if marked]
        one = expected if tokens == "turn" else expected + tokenizer.eos_token
        assert tokenizer.decode(distilled) == one * len(turns)


def test_nobody_is_asked_about_an_episode_that_broke(stage_context):
    _, tokenizer = weights.load("tiny")
    broken = [replace(episode, broken=True) for episode in played(stage_context(), tokenizer)]
    privileged = Privileged(stage_with(corrections=True), Memory(), tokenizer, corrections)
    assert not any(any(scored.distilled()) for scored in privileged.score(broken))
    assert privileged.corrections == []
    assert set(privileged.figures.values()) == {0.0}
