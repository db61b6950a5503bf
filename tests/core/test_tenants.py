"""One workspace, one tenant's runs: what others have in its memory and record is neither read nor in the way."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tutelage import loop
from tutelage.agents import extraction
from tutelage.cli import main
from tutelage.config import Config
from tutelage.cycle import DEMONSTRATIONS, experience_trajectories
from tutelage.errors import RecordError
from tutelage.exchange import import_jsonl, write_jsonl
from tutelage.experience import Experience, Skill, Source, Status
from tutelage.gate import decide
from tutelage.memory.exchange import Importer, Terms
from tutelage.progress import Reporter
from tutelage.report import write_report
from tutelage.types import OWN
from tutelage.workspace import Workspace

QUIET = Reporter(None)


def opened(folder: Path, tenant: str, *, remember: bool = True) -> Workspace:
    config = {
        "workspace": folder,
        "environments": [{"name": "toy", "families": ["press", "copy"]}],
        "teacher": {"model": "expert/*"},
        "memory": {"tenant": tenant},
        "student": {"weights": "tiny"},
        "collect": {"demonstrations": 6, "mistaken": 4, "explored": 0, "guarded": 0},
        "stages": [],
    }
    return Workspace(Config.model_validate(config), remember=remember)


def cycle(workspace: Workspace) -> list[str]:
    """Cycle 1 from collection to consolidation, and what is in use after it, in words."""
    for name in ("collect", "judge", "extract", "consolidate"):
        loop.NODES[name](workspace, 1, QUIET)
    decide(workspace, 1, QUIET)
    return sorted(map(workspace.memory.render, workspace.memory.experiences()))


@pytest.fixture
def file(tmp_path: Path) -> tuple[list[list[Experience]], Path, list[str], dict[str, Any]]:
    """What team-b has from the same cycle elsewhere: memory, trajectories, its words, its funnel."""
    theirs = opened(tmp_path / "theirs", "team-b")
    words = cycle(theirs)
    histories = [theirs.memory.history(item.id) for item in theirs.memory.experiences()]
    write_jsonl(theirs.record.trajectories(), tmp_path / "b.jsonl")
    extracted = theirs.record.get("extraction", "1")
    assert extracted is not None
    assert len(words) > 2
    assert {item.tenant for versions in histories for item in versions} == {"team-b"}
    theirs.close()
    return histories, tmp_path / "b.jsonl", words, dict(extracted["funnel"])


def test_a_cycle_of_one_tenant_runs_beside_what_another_has_imported(
    file: tuple[list[list[Experience]], Path, list[str], dict[str, Any]], tmp_path: Path
) -> None:
    histories, episodes, words, funnel = file
    guest = opened(tmp_path / "w", "team-b")
    taken = Importer(guest.memory, Terms("theirs", own=True)).take(histories)
    assert all(entry.added for entry in taken)
    guest.close()
    opened(tmp_path / "w", "team-b").close()
    guest = opened(tmp_path / "w", "team-b")
    copied = import_jsonl(guest.record, episodes, cycle=1, arm=DEMONSTRATIONS)
    assert copied == len(guest.record.trajectories(arm=DEMONSTRATIONS)) > 10
    guest.close()

    ours = opened(tmp_path / "w", "team-a")
    assert experience_trajectories(ours) == []
    assert cycle(ours) == words, "as if nobody else were there"
    extracted = ours.record.get("extraction", "1")
    assert extracted is not None
    assert dict(extracted["funnel"]) == funnel
    played = ours.record.trajectories()
    assert {(item.tenant, item.origin) for item in played} == {("team-a", OWN)}
    assert {item.tenant for item in ours.memory.experiences()} == {"team-a"}
    page = write_report(ours.record, tmp_path / "report.html").read_text()
    mine, foreign = ours.memory.experiences(), [versions[0].id for versions in histories]
    ours.close()
    assert all(item.id in page for item in mine)
    guest = opened(tmp_path / "w", "team-b", remember=False)
    strangers = foreign + [item.id for item in guest.record.trajectories()]
    assert len(strangers) > 12
    assert not [key for key in strangers if key in page]
    assert sorted(map(guest.memory.render, guest.memory.experiences())) == words, "and theirs is as it was"
    guest.close()


def test_another_tenants_run_is_refused_before_anything_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = opened(tmp_path / "w", "team-a")
    cycle(first)
    before = first.record.fingerprint()
    first.close()
    settings = (tmp_path / "w" / "config.json").read_text()
    capsys.readouterr()
    for command in (["run"], ["rollout", "-e", "toy"], ["eval", "--policy", "expert", "-e", "toy"], ["report"]):
        arguments = [*command, "-s", f"workspace={tmp_path / 'w'}", "-s", "memory.tenant=team-b"]
        monkeypatch.setattr(sys, "argv", ["tutelage", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr().err
        assert (ended.value.code, told.count("\n")) == (2, 1), told
        assert "are of tenant 'team-a'; those of 'team-b' need a workspace of their own" in told
    guest = opened(tmp_path / "w", "team-b", remember=False)
    with pytest.raises(RecordError, match="tenant 'team-a'"):
        loop.run(guest, "extract", QUIET)
    assert guest.memory.experiences() == []
    assert guest.record.fingerprint() == before
    guest.close()
    assert (tmp_path / "w" / "config.json").read_text() == settings


def test_commands_about_what_was_forgotten_leave_the_settings_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = opened(tmp_path / "w", "team-a")
    loop.NODES["collect"](ours, 1, QUIET)
    gone = ours.record.trajectories()[0].id
    ours.close()
    settings = (tmp_path / "w" / "config.json").read_text()
    for command in (["trajectories", "forget", gone, "-y"], ["memory", "forgotten", "--json"]):
        arguments = [*command, "-s", f"workspace={tmp_path / 'w'}", "-s", "act.width=3"]
        monkeypatch.setattr(sys, "argv", ["tutelage", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
    told = capsys.readouterr().out
    assert [stone["id"] for stone in json.loads(told[told.index("[") :])] == [gone]
    assert (tmp_path / "w" / "config.json").read_text() == settings


def test_the_distiller_is_shown_only_what_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = opened(tmp_path / "w", "team-a")
    loop.NODES["collect"](ours, 1, QUIET)
    loop.NODES["judge"](ours, 1, QUIET)
    for number, (trust, status) in enumerate(
        ((1.0, Status.ACTIVE), (1.0, Status.RETIRED), (0.2, Status.RETIRED), (0.2, Status.ACTIVE), (1.0, "quarantined"))
    ):
        item = Experience(
            tenant="team-a",
            environment="toy",
            family="press",
            goal="press {text}",
            content=Skill(preconditions=(f"p{number}",), procedure=('click(button "a")',), verification=()),
            sources=(Source(trajectory="", task="", origin=OWN),),
            trust=trust,
            status=Status(status),
            author="rules",
        )
        ours.record.save_experience(item)
    seen: list[Any] = []
    real: Callable[..., Any] = extraction.distil_many

    def watched(cases: Any, existing: Any, *rest: Any, **others: Any) -> Any:
        seen.append([item.content.preconditions[0] for item in existing])
        return real(cases, existing, *rest, **others)

    monkeypatch.setattr(extraction, "distil_many", watched)
    loop.NODES["extract"](ours, 1, QUIET)
    ours.close()
    assert seen
    assert all(each == ["p0", "p1"] for each in seen)
