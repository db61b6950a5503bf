"""The report in Chromium: a record as a cycle leaves it, with hostile page text in it."""

import io
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright
from rich.console import Console

from tutelage import results
from tutelage.absorption import MEASUREMENT
from tutelage.config import EvidenceConfig, GateConfig
from tutelage.effects import Pair, effect
from tutelage.environments.miniwob.browser import find_chromium
from tutelage.evaluate import compare_arms, gate, read_arm
from tutelage.experience import Experience, Guardrail, Skill, Source, Status, Sticker
from tutelage.measures import FamilyHoldings, Holdings, Measurement, Move, Student
from tutelage.record import Record
from tutelage.report import MOST_TRAJECTORIES, choose, write_report
from tutelage.results import AlarmDoc, ComparisonDoc, CycleDoc, EvaluationDoc, GateDoc
from tutelage.types import Cause, Diagnosis, Ending, Shown, Split, Step, Task, Trajectory, Verdict

FAMILIES = ("click-button", "enter-text", "login-user", "use-spinner")
ATTACK = '<script>document.title = "owned"</script><img src=x onerror="document.title=\'owned\'">'
STAGES = (("base", "base", 0.05), ("sft", "after SFT", 0.7), ("grpo", "after GRPO", 0.7), ("sdpo", "after SDPO", 0.8))


def episode(
    family: str, seed: int, split: Split, *, policy: str, solved: bool, memory: bool = False, rule: str | None = None
) -> Trajectory:
    page = f'[r1] textbox "Username" value=""\n[r2] textbox "Password" value=""\n[r3] button "Log in {seed}"\n{ATTACK}'
    filled = page.replace('value=""', 'value="bob"', 1)
    steps = [
        Step(
            observation=page,
            reply='The name goes first.\nfill("r1", "bob")',
            thought="The name goes first.",
            action='fill("r1", "bob")',
            meaning='fill(textbox "Username", "bob")',
            diagnosis=Diagnosis(
                cause=Cause.PROGRESS,
                added=('[r1] textbox "Username" value="bob"',),
                removed=('[r1] textbox "Username" value=""',),
            ),
            after=filled,
        )
    ]
    if rule:
        steps.append(
            Step(
                observation=filled,
                reply='click("r3")',
                action='click("r3")',
                meaning='click(button "Log in")',
                diagnosis=Diagnosis(
                    cause=Cause.BLOCKED, evidence="Blocked: the password is still empty. Fill it first."
                ),
                after=filled,
                blocked_by=rule,
            )
        )
    steps.append(
        Step(
            observation=filled,
            notes=("The last action was blocked.",) if rule else (),
            reply='click("r3")',
            action='click("r3")',
            meaning=f'click(button "Log in {seed}")',
            diagnosis=Diagnosis(cause=Cause.SOLVED)
            if solved
            else Diagnosis(cause=Cause.WRONG_END, evidence="The task ended and was not accepted."),
            after="over",
            reward=1.0 if solved else -1.0,
        )
    )
    return Trajectory(
        task=Task(environment="miniwob", family=family, seed=seed, split=split),
        goal=f'Log in as "bob" with password "x{seed}".',
        system="Act on the page.",
        policy=policy,
        memory=memory,
        shown=(Shown(id="exp_skill", version=1, text="Log in: fill both fields, then click."),) if memory else (),
        steps=tuple(steps),
        reward=1.0 if solved else -1.0,
        ending=Ending.SOLVED if solved else Ending.FAILED,
        seconds=1.5,
    )


def fill(record: Record) -> None:
    """One cycle: demonstrations, experiences, four students, their arms, the gate."""
    rng = random.Random(0)
    results.save(
        record,
        CycleDoc(
            cycle=1,
            environments=("miniwob",),
            families=FAMILIES,
            teacher="expert/miniwob (scripted)",
            episodes={"demonstrations": 80},
            accepted=64,
            seconds={"collect": 30.0, "train": 600.0},
        ),
    )
    for index in range(80):
        shown = episode(
            FAMILIES[index % 4], index, Split.TRAIN, policy="expert/miniwob (scripted)", solved=index % 5 > 0
        )
        record.add_trajectory(shown, key=f"1/demonstrations/{shown.task.id}", cycle=1, arm="demonstrations")
    add_experiences(record)
    students = [
        Student(number=n, stage=stage, cycle=min(n, 1), weights=f"students/{n}" if n else "smollm2", digest="ab" * 32)
        for n, (stage, _, _) in enumerate(STAGES)
    ]
    students = [
        student.model_copy(update={"parent": students[n - 1].id if n else None}) for n, student in enumerate(students)
    ]
    for student in students:
        record.add_student(student)
    for run in ("1/0-sft", "1/1-grpo"):
        for step in range(20):
            loss = 3 * 0.8**step + rng.random() / 5
            record.add_metrics(run, step, {"loss": loss, "reward": step / 20, "grad_norm": 1 + rng.random()})
    alarm = {"cycle": 1, "stage": "grpo", "student": 2, "step": 6, "alarm": "kl", "action": "stop", "good": 4}
    results.save(record, AlarmDoc(**alarm, text="grpo step 6: KL <b>2</b>: stopped with the weights after step 4"))
    record.put(
        "usage",
        "teacher",
        {"calls": 90, "prompt_tokens": 61234, "completion_tokens": 1234, "dollars": 0.0, "unpriced": 0},
    )
    arms = {f"{stage}-off": (n, label, share, False, 32) for n, (stage, label, share) in enumerate(STAGES)}
    arms |= {"base-on": (0, "base", 0.15, True, 16), "sdpo-on": (3, "after SDPO", 0.9, True, 16)}
    for name, (number, label, share, memory, count) in arms.items():
        measure(record, name, f"student@{number}", label, share, memory, count, Split.VALIDATION, rng)
    measure(record, "base-test", "student@0", "base", 0.05, False, 16, Split.TEST, rng)
    measure(record, "sdpo-test", "student@3", "after SDPO", 0.6, False, 16, Split.TEST, rng)
    for old, new in (
        ("base-off", "sft-off"),
        ("sft-off", "grpo-off"),
        ("grpo-off", "sdpo-off"),
        ("base-off", "sdpo-off"),
        ("base-on", "sdpo-on"),
        ("sdpo-off", "sdpo-on"),
        ("base-test", "sdpo-test"),
    ):
        compare(record, old, new)
    decide(record, students[3])


def add_experiences(record: Record) -> None:
    source = record.trajectories()[0]
    shared = {
        "environment": "miniwob",
        "family": "login-user",
        "author": "rules (scripted)",
        "status": Status.ACTIVE,
        "goal": "Log in as {a} with password {b}.",
        "sources": (Source(trajectory=source.id, task=source.task.id, steps=(1,)),),
    }
    contents = {
        "exp_rule": Guardrail(
            trigger=('textbox "Password" value=""',),
            root_cause="the password is still empty.",
            forbidden='click(button "Log in")',
            remedy="Fill it first.",
        ),
        "exp_skill": Skill(
            preconditions=("a textbox and a button",),
            procedure=('fill(textbox "Username", "{a}")', 'click(button "Log in")'),
            verification=("the page accepts the login",),
        ),
        "exp_sticker": Sticker(conditions=("There are two fields.", f"One says {ATTACK}"), question="Log in?"),
    }
    for name, content in contents.items():
        record.save_experience(Experience(id=name, content=content, **shared))
    record.add_verdict(
        Verdict(trajectory=source.id, judge="expert/judge (scripted)", successful=True, reason="It says so.")
    )


def measure(
    record: Record,
    name: str,
    student: str,
    label: str,
    share: float,
    memory: bool,
    count: int,
    split: Split,
    rng: random.Random,
) -> None:
    tasks = []
    for index in range(count):
        done = episode(
            FAMILIES[index % 4],
            10**6 + index,
            split,
            policy=student,
            solved=rng.random() < share,
            memory=memory,
            rule="exp_rule" if memory and index % 5 == 0 else None,
        )
        record.add_trajectory(done, key=f"1/eval/{name}/{done.task.id}", cycle=1, arm=f"eval/{name}")
        tasks.append(done.task)
    arm = read_arm(record, tasks, key_prefix=f"1/eval/{name}", student_label=student, memory=memory, split=split)
    results.save(
        record,
        EvaluationDoc(**arm.model_dump(), cycle=1, name=name, label=label, policy=f"{student}, SmolLM2-135M-Instruct"),
    )


def compare(record: Record, old: str, new: str) -> None:
    docs = {doc.name: doc for doc in results.load(record, EvaluationDoc)}
    found = compare_arms(record, docs[old], docs[new])
    results.save(
        record,
        ComparisonDoc(**found.model_dump(), cycle=1, old=old, new=new, decides=(old, new) == ("base-off", "sdpo-off")),
    )


def decide(record: Record, student: Student) -> None:
    comparison = next(doc for doc in results.load(record, ComparisonDoc) if doc.decides)
    promoted, reason = gate(comparison, GateConfig())
    results.save(
        record,
        GateDoc(
            cycle=1,
            promoted=promoted,
            reason=reason,
            candidate="student@3",
            incumbent="student@0",
            comparison=comparison.name,
        ),
    )
    add_measurement(record, student.id)
    if promoted:
        record.promote(student.id, reason=reason, evidence=comparison.model_dump(mode="json"))


def add_measurement(record: Record, student: str) -> None:
    """One family that the student holds and one that memory helps; something came back."""
    pairs = {"login-user": [Pair(True, True)] * 30, "enter-text": [Pair(True, False, frozenset({"exp_skill"}))] * 9}
    effects = [effect(f"miniwob/{family}", found, EvidenceConfig()) for family, found in pairs.items()]
    effects.append(effect("miniwob/enter-text", pairs["enter-text"], EvidenceConfig(), experience="exp_skill"))
    family = FamilyHoldings(used=2, held=1, episodes=30, tokens_all=81.0, tokens_now=40.0)
    held = Holdings(
        student="student@3",
        tokenizer="student@3",
        used=3,
        held=1,
        shown=40,
        held_shown=30,
        families={"miniwob/login-user": family},
        episodes=5,
        tokens_saved=1234,
    )
    names = {"experience": "exp_skill", "kind": "skill", "family": "miniwob/enter-text"}
    move = Move(before="absorbed", after="active", reason=f"it helps {ATTACK}", **names)
    found = Measurement(
        name="1/evidence",
        cycle=1,
        place=0,
        student=student,
        pairs=64,
        item_pairs=0,
        families={},
        finished=True,
        effects=tuple(effects),
        moves=(move,),
        unmeasured=4,
        holdings=held,
    )
    record.put(MEASUREMENT, found.name, found.model_dump(mode="json"))


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Record]:
    record = Record.open(tmp_path_factory.mktemp("workspace"))
    fill(record)
    yield record
    record.close()


@pytest.fixture(scope="module")
def page(record: Record, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The report, open in Chromium; what the page asks for or complains about is noted on it."""
    path = write_report(record, tmp_path_factory.mktemp("report") / "deep" / "report.html")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.complaints, page.requests = [], []  # type: ignore[attr-defined]
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("request", lambda request: page.requests.append(request.url))
        page.goto(path.as_uri())
        yield page
        browser.close()


def test_page_is_self_contained_and_quiet(page: Page) -> None:
    assert page.complaints == []
    assert len(page.requests) == 1  # the file itself
    assert page.title() == "Tutelage report"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_table_shows_what_was_measured(page: Page, record: Record) -> None:
    rows = page.locator("table.results tr").all_inner_texts()[1:]
    docs = results.load(record, EvaluationDoc)
    assert len(rows) == len(docs) == 8
    for row, doc in zip(rows, docs, strict=True):
        assert results.percent(doc.rate) in row
        assert results.interval(doc.rate) in row
        assert f"{doc.rate.successes} of {doc.rate.episodes}" in row
        assert ("decides nothing" in row) == (doc.split is Split.TEST)
    for doc in results.load(record, ComparisonDoc):
        assert any(results.points(doc) in row for row in rows)
    assert page.locator("table.results .badge", has_text="decides").count() == 1
    assert page.locator("svg[aria-label='Success per arm'] .arm").count() == 8
    assert "Scripted demonstrators, not models: expert/miniwob (scripted)." in page.inner_text("header")
    assert "student@3 was promoted" in page.inner_text("header")


def test_alarms_are_told(page: Page) -> None:
    told = "Alarm in cycle 1: grpo step 6: KL <b>2</b>: stopped with the weights after step 4."
    assert told in page.locator("#training ~ p").all_inner_texts()


def test_memory_says_what_it_does_what_the_weights_hold_and_what_came_back(page: Page) -> None:
    held, helped = page.locator("table.evidence tr").all_inner_texts()[1:]
    assert "100 %" in held
    assert "81 → 40" in held
    assert "held" in held.split()
    assert "helps" in helped.split()
    text = page.locator("body").inner_text()
    assert "student@3 held 1 of the 3 stickers and skills that were used, 30 of the 40 times" in text
    assert "1,234 tokens in 5 episodes" in text
    assert "4 stickers and skills in use are unmeasured" in text
    assert ATTACK in page.locator(".restored").inner_text()
    assert page.locator(".restored a[href='#exp_skill']").count() == 1


def test_page_text_is_shown_and_never_run(page: Page) -> None:
    assert ATTACK in page.locator("details.trajectory pre").first.text_content()
    assert ATTACK in page.locator("#exp_sticker").inner_text()
    assert page.locator("body img").count() == 0
    assert page.locator("script").count() == 1


def test_links_lead_from_experiences_to_their_steps_and_back(page: Page) -> None:
    page.click("#exp_rule .sources a:has-text('step 1')")
    step = page.locator(".step:target")
    assert step.is_visible()
    assert "wrong_end" in step.inner_text()
    blocked = page.locator("details.trajectory", has=page.locator("summary .badge.warn")).first
    blocked.locator("summary").first.click()
    assert "Blocked by exp_rule; the action was not carried out." in blocked.inner_text()
    assert "Log in: fill both fields, then click." in blocked.inner_text()
    page.fill("#filter", "blocked student@3")
    assert page.locator("details.trajectory:visible").count() < page.locator("details.trajectory").count()


def test_choice_is_capped_and_keeps_what_matters(page: Page, record: Record) -> None:
    trajectories, experiences = record.trajectories(), record.experiences()
    chosen = choose(trajectories, experiences)
    assert len(chosen) == MOST_TRAJECTORIES == page.locator("details.trajectory").count()
    assert f"{len(trajectories) - MOST_TRAJECTORIES} are left out" in page.inner_text("body")
    assert experiences[0].sources[0].trajectory in {item.id for item in chosen}
    assert any(step.blocked_by for item in chosen for step in item.steps)
    assert {(item.policy, item.memory, item.task.split) for item in chosen} == {
        (item.policy, item.memory, item.task.split) for item in trajectories
    }
    assert choose(trajectories[:5], experiences) == trajectories[:5]


def test_an_empty_record_makes_a_page_too(tmp_path: Path) -> None:
    record = Record.open(tmp_path)
    text = write_report(record, tmp_path / "report.html").read_text()
    assert "Nothing has been compared yet." in text
    assert "Nothing has been trained yet." in text


def test_results_for_programs_and_terminals(record: Record) -> None:
    found = json.loads(json.dumps(results.results_json(record, 1)))
    first = found["evaluations"][0]
    assert (first["label"], first["success"]) == ("base", first["rate"]["successes"] / first["rate"]["episodes"])
    assert found["gate"]["promoted"] is True
    assert sum(item["decides"] for item in found["comparisons"]) == 1
    console = Console(width=200, file=io.StringIO())
    console.print(results.results_table(record, 1))
    text = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    assert "after SDPO" in text
    assert "the test split is reported and decides nothing" in text
