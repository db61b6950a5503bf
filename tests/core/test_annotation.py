"""The annotation pipeline with a provider's model in every role: the scripted expert behind a real HTTP server."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tutelage import loop
from tutelage.agents import provider
from tutelage.annotation import EXPLORATION, annotate
from tutelage.cli.annotate import app
from tutelage.config import load_config
from tutelage.cycle import accepted_trajectories, experience_trajectories
from tutelage.cycle_lock import cycle_lock
from tutelage.design_store import DesignStore
from tutelage.designs import DESIGNED
from tutelage.errors import BudgetSpent, ConfigError, JudgeUnfit, PolicyFailed, ProviderRefused, WorkspaceBusy
from tutelage.funnel import UNFIT
from tutelage.jobs.store import JobStore
from tutelage.jobs.work import work
from tutelage.progress import Reporter
from tutelage.workspace import Workspace

SETTINGS = [
    "environments.0.name=files",
    "teacher.model=openai/files-expert",
    "teacher.tools=text",
    "annotate.calibrate=12",
    "annotate.personas=2",
]


def opened(folder: Path, *settings: str) -> Workspace:
    return Workspace(load_config(None, [*SETTINGS, *settings, f"workspace={folder}"]))


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with closing(opened(tmp_path / "w")) as found:
        yield found


def losses(found: Any) -> dict[str, int]:
    return {reason: count for _, reason, count in found.losses}


def test_what_a_model_designs_is_accepted_if_check_and_judge_agree(expert_server: Any, workspace: Workspace) -> None:
    found = annotate(workspace, "one", 6, Reporter(None))
    assert len(found.accepted) == 6
    designs = DesignStore(workspace.record, "one").designs(DESIGNED)
    assert not any(design.by_rule for design in designs)
    verdicts = {item.trajectory: item for item in workspace.record.verdicts()}
    assert all(verdicts[item].hinted and verdicts[item].successful for item in found.accepted)
    assert {item.id for item in accepted_trajectories(workspace)} == set(found.accepted)
    assert workspace.record.trajectories(arm=EXPLORATION)
    spent = workspace.usage.roles()
    assert sum(spent[role].calls for role in ("persona", "designer", "teacher", "judge")) == len(expert_server.requests)


def test_a_judge_that_says_yes_to_everything_may_not_filter(expert_server: Any, workspace: Workspace) -> None:
    def gullible(request: dict[str, Any]) -> str:
        if request["messages"][0]["content"].startswith("Role: judge"):
            return json.dumps({"successful": True, "reason": "Looks good."})
        return provider.reply("files", request["messages"])

    expert_server.reply = gullible
    found = annotate(workspace, "one", 4, Reporter(None))
    assert found.accepted == ()
    assert losses(found)[UNFIT] == 4
    assert experience_trajectories(workspace) == [], "neither a success nor a failure"
    # Another judge judges again, and its word alone counts.
    with closing(opened(workspace.folder, "teacher.judge=openai/files-expert-2")) as other:
        expert_server.reply = lambda request: provider.reply("files", request["messages"])
        assert len(annotate(other, "one", 4, Reporter(None)).accepted) == 4


def test_a_judge_that_costs_money_and_may_not_filter_ends_the_run(expert_server: Any, tmp_path: Path) -> None:
    expert_server.reply = lambda request: json.dumps({"successful": True, "reason": "Looks good."})
    with closing(opened(tmp_path / "w", "teacher.model=openai/gpt-4o-mini")) as workspace:
        with pytest.raises(JudgeUnfit, match="--trust-judge"):
            annotate(workspace, "one", 4, Reporter(None))
        assert set(workspace.usage.roles()) == {"judge"}


def test_a_cycle_that_such_a_judge_ended_goes_on_when_it_is_trusted(expert_server: Any, tmp_path: Path) -> None:
    expert_server.reply = lambda request: json.dumps({"successful": True, "reason": "Looks good."})
    settings = ("teacher.model=openai/gpt-4o-mini", "collect={demonstrations=0, mistaken=0, explored=0, designed=2}")
    for trusted, stop in (("false", JudgeUnfit), ("true", BudgetSpent)):
        budget = f"budget.calls={1000 if trusted == 'false' else len(expert_server.requests) + 1}"
        workspace = opened(tmp_path / "w", *settings, budget, f"annotate.trust_judge={trusted}")
        with closing(workspace), pytest.raises(stop):
            loop.run(workspace, "run", Reporter(None))


def test_a_run_goes_on_under_its_own_settings_only(expert_server: Any, workspace: Workspace) -> None:
    annotate(workspace, "one", 2, Reporter(None))
    with pytest.raises(ConfigError, match=r"'one' was begun with .*\(tasks: 2, now 3\).*--name"):
        annotate(workspace, "one", 3, Reporter(None))
    other = opened(workspace.folder, "environments.0.name=toy")
    with closing(other), pytest.raises(ConfigError, match="environments"):
        annotate(other, "one", 2, Reporter(None))


def test_it_may_if_it_is_trusted_all_the_same(expert_server: Any, tmp_path: Path) -> None:
    with closing(opened(tmp_path / "w", "annotate.trust_judge=true", "teacher.votes=3")) as workspace:
        found = annotate(workspace, "one", 4, Reporter(None))
        assert len(found.accepted) == 4
        assert all(item.votes == (True,) * 3 for item in workspace.record.verdicts())
        assert not workspace.record.items("calibration"), "nothing was spent on measuring it"


def test_a_run_that_its_budget_stops_again_and_again_ends_like_an_undisturbed_one(
    expert_server: Any, workspace: Workspace, tmp_path: Path
) -> None:
    whole = annotate(workspace, "one", 4, Reporter(None))
    needed = workspace.usage.total().calls
    goals = {design.goal for design in DesignStore(workspace.record, "one").designs(DESIGNED)}
    limit, stops = 0, 0
    while True:
        limit += 14  # more than an exploration needs: an interrupted episode begins again
        with closing(opened(tmp_path / "stopped", f"budget.calls={limit}")) as again:
            try:
                found = annotate(again, "one", 4, Reporter(None))
            except BudgetSpent:
                stops += 1
                assert limit < 5 * needed, "it gets nowhere"
                continue
            assert {design.goal for design in DesignStore(again.record, "one").designs(DESIGNED)} == goals
            break
    assert stops > 1
    assert found.counts == whole.counts


def test_a_run_that_never_had_an_answer_is_in_nobodys_way(server: Any, workspace: Workspace, tmp_path: Path) -> None:
    server.faults = [(401, json.dumps({"error": {"message": "no such key"}}), {})] * 99
    with pytest.raises(ProviderRefused, match="no such key"):
        annotate(workspace, "one", 2, Reporter(None))
    assert len(server.requests) <= workspace.config.annotate.calibrate, "one batch, nothing tried again"
    with closing(opened(workspace.folder, "teacher.model=expert/*")) as scripted:
        assert len(annotate(scripted, "one", 3, Reporter(None)).accepted) == 3


def test_a_provider_that_is_not_there_is_not_taken_for_a_bad_judge(server: Any, workspace: Workspace) -> None:
    server.http.shutdown()
    server.http.server_close()
    with closing(opened(workspace.folder, "teacher.retries=0")) as lonely, pytest.raises(PolicyFailed, match="onnect"):
        annotate(lonely, "one", 2, Reporter(None))


def test_it_is_not_done_while_a_cycle_is_under_way(workspace: Workspace) -> None:
    job, _ = JobStore(workspace.record).submit("annotate", {"tasks": 1}, by="test")
    with cycle_lock(workspace.folder, "another"):
        with pytest.raises(WorkspaceBusy, match="another"):
            work(workspace.record, workspace.folder, job, Reporter(None))
        with pytest.raises(WorkspaceBusy, match="another"):
            CliRunner().invoke(app, ["annotate", "-s", f"workspace={workspace.folder}"], catch_exceptions=False)
    assert not workspace.record.trajectories()
