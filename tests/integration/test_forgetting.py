"""A workspace that forgets everything it did keeps none of it in any file: record, index, checkpoints, report."""

import html
import json
from pathlib import Path

from tutelage import loop
from tutelage.config import Config
from tutelage.cycle import DEMONSTRATIONS, MISTAKEN, run_and_record
from tutelage.experience import Experience
from tutelage.memory.query import Query
from tutelage.progress import Reporter
from tutelage.report import write_report
from tutelage.types import Split, Trajectory
from tutelage.workspace import Workspace

QUIET = Reporter(None)
LONG = 12
"""Shorter texts (a button's name) are in the settings and in the code as well."""


def said(trajectories: list[Trajectory], experiences: list[Experience]) -> set[str]:
    """What agents saw and wrote, and what was learned from it, line by line."""
    texts = [text for item in trajectories for text in (item.goal, *(shown.text for shown in item.shown))]
    for item in trajectories:
        for step in item.steps:
            texts += [*step.observation.splitlines(), *step.after.splitlines(), step.action, step.meaning, *step.notes]
    for experience in experiences:
        for value in (experience.goal, *experience.content.model_dump().values()):
            texts += [value] if isinstance(value, str) else list(value)
    return {text for text in texts if len(text) >= LONG}


def found_in(folder: Path, texts: set[str]) -> dict[str, list[str]]:
    """The texts, as they are or as JSON or HTML has them, that stand in some file."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    contents = {str(path.relative_to(folder)): path.read_bytes() for path in files}
    found = {}
    for text in texts:
        forms = {text.encode(), json.dumps(text)[1:-1].encode(), html.escape(text).encode()}
        if places := [name for name, data in contents.items() if any(form in data for form in forms)]:
            found[text] = places
    return found


def test_nothing_that_was_forgotten_is_in_any_file(tmp_path: Path) -> None:
    config = {
        "workspace": tmp_path / "w",
        "environments": [{"name": "toy"}],
        "teacher": {"model": "expert/toy"},
        "collect": {"demonstrations": 4, "mistaken": 4, "mistake_rate": 0.5},
    }
    workspace = Workspace(Config.model_validate(config))
    record, tasks = workspace.record, workspace.suite.tasks(Split.TRAIN, 0, 4)
    run_and_record(workspace, tasks, workspace.acting(), arm=DEMONSTRATIONS, cycle=1, report=QUIET)
    run_and_record(workspace, tasks, workspace.clumsy_teacher(), arm=MISTAKEN, cycle=1, report=QUIET)
    loop.run(workspace, "extract", QUIET)
    memory = workspace.memory
    later = workspace.suite.tasks(Split.TRAIN, 50, 4)
    run_and_record(workspace, later, workspace.clumsy_teacher(), arm="guarded", cycle=1, report=QUIET, memory=memory)
    write_report(record, tmp_path / "w" / "report.html")
    episodes, experiences = record.trajectories(), memory.experiences()
    assert any(item.shown for item in episodes)
    assert any(step.blocked_by for item in episodes for step in item.steps)
    texts = said(episodes, experiences)
    before = found_in(tmp_path / "w", texts)
    assert before.keys() == texts
    assert {name for places in before.values() for name in places} >= {"record.db-wal", "report.html"}

    for experience in experiences:
        memory.forget(experience.id, reason="all of it", by="hand:ada")
    alone = said([], experiences) - said([_unshown(item) for item in episodes], [])
    assert alone
    assert found_in(tmp_path / "w", alone) == {}
    for item in episodes:
        record.forget_trajectory(item.id, "all of it", "hand:ada")
    assert memory.search(Query(text=episodes[0].goal, k=50)) == []
    write_report(record, tmp_path / "w" / "report.html")
    assert found_in(tmp_path / "w", texts) == {}
    assert (tmp_path / "w" / "checkpoints.db").exists()
    assert [(item.id, item.success) for item in record.trajectories()] == [(item.id, item.success) for item in episodes]
    workspace.close()
    assert found_in(tmp_path / "w", texts) == {}


def _unshown(item: Trajectory) -> Trajectory:
    """What the episode says by itself, without what memory had to say in it."""
    steps = tuple(step.model_copy(update={"notes": ()}) for step in item.steps)
    return item.model_copy(update={"shown": (), "steps": steps})
