"""The learning benchmark runs a plan to its table, goes on where it was stopped, and gives its arms equal time."""

import importlib.util
import json
import shutil
import sys
from itertools import combinations, pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).resolve().parents[2] / "benchmarks" / "learning"
PLAN = """
seeds = 2
seconds = 0.3
control = "SFT longer"
episodes = 6
episodes_unseen = 2

[sft]
steps = 3
learning_rate = 3e-3

[[arms."SFT longer"]]
type = "sft"
steps = 500
schedule = "constant"
warmup = 0

[[arms."GRPO, then SDPO"]]
type = "grpo"
steps = 50
warmup = 0
batch_size = 2
group_size = 2

[[arms."GRPO, then SDPO"]]
type = "sdpo"
steps = 50
warmup = 0
batch_size = 2
group_size = 2

[worlds.toy]
unseen = [{ name = "toy", families = ["form"] }]

[worlds.toy.config]
environments = [{ name = "toy", families = ["press", "tick"] }]
teacher = { model = "expert/*" }
student = { weights = "tiny", dtype = "float32", max_new_tokens = 4 }
act = { max_steps = 2 }
collect = { demonstrations = 4, mistaken = 2, explored = 0, guarded = 0 }
"""


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tutelage_tests_learning", HERE / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    file = tmp_path / "plan.toml"
    file.write_text(PLAN)
    return file


def test_a_plan_comes_to_its_table_stopped_or_not(
    benchmark: ModuleType, plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    benchmark.main([str(plan), "--seeds", "1", "--out", str(out)])
    capsys.readouterr()
    first = json.loads((out / "results.json").read_text())["cells"]
    benchmark.main([str(plan), "--out", str(out)])
    results = json.loads((out / "results.json").read_text())
    cells: list[dict[str, Any]] = results["cells"]
    assert [cell for cell in cells if cell["seed"] == 0] == first, "nothing is done twice"
    arms = ["base", "SFT", "SFT longer", "GRPO, then SDPO"]
    assert [(cell["seed"], cell["arm"]) for cell in cells] == [(seed, arm) for seed in (0, 1) for arm in arms]
    for cell in cells:
        assert len(cell["outcomes"]["unseen families"]) == 2
        assert all("form" in task for task in cell["outcomes"]["unseen families"])
        if cell["arm"] in arms[2:]:
            times = [0.0, *(point["seconds"] for point in cell["curve"])]
            longest = max(after - before for before, after in pairwise(times))
            assert abs(cell["seconds"] - 0.3) <= 2 * longest, "to the nearest step, in each of its stages"
            assert cell["trained"] > 0 or cell["arm"] != "SFT longer"
            assert cell["digest"] != cells[1]["digest"]
    tasks = [set(cell["outcomes"]["trained families"]) for cell in cells]
    assert tasks[0] == tasks[1] == tasks[2] == tasks[3] != tasks[4], "the same for all students of a seed"
    table = capsys.readouterr().out
    assert table == (out / "table.txt").read_text()
    assert "GRPO, then SDPO is not shown to differ from SFT longer: +0 (" in table
    assert "recipe by validation: SFT longer" in table
    assert (out / "plots.html").read_text().count("<svg") == 8
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(out / "results.json", elsewhere)
    benchmark.main([str(plan), "--out", str(elsewhere)])
    assert capsys.readouterr().out == table, "results alone are enough to go on from"
    assert not (elsewhere / "workspaces").exists()
    plan.write_text(PLAN.replace("seconds = 0.3", "seconds = 0.4"))
    with pytest.raises(SystemExit, match=r"is of another plan \(plan\.seconds\)"):
        benchmark.main([str(plan), "--out", str(out)])


def test_what_makes_a_comparison_worthless_is_refused(benchmark: ModuleType, plan: Path) -> None:
    for old, new, why in [
        ('families = ["form"]', 'families = ["tick"]', "toy/tick: trained on, so not unseen"),
        ('control = "SFT longer"', 'control = "GRPO, then SDPO"', "must be an arm of sft stages alone"),
        ("warmup = 0", "warmup = 0.5", "ends by time, so set warmup = 0"),
    ]:
        plan.write_text(PLAN.replace(old, new, 1))
        with pytest.raises(SystemExit, match=why):
            benchmark.main([str(plan), "--check"])


@pytest.mark.parametrize("file", sorted(HERE.parent.glob("results/learning-*.json")), ids=lambda file: file.stem)
def test_committed_results_may_be_gone_on_from(benchmark: ModuleType, file: Path, tmp_path: Path) -> None:
    shutil.copy(file, tmp_path / "results.json")
    plan = benchmark.read(HERE / f"{file.stem.split('-')[1]}.toml")
    assert benchmark.before(plan, tmp_path)["cells"], "the plan is still the one that was run"


def test_intervals_over_seeds_are_students(benchmark: ModuleType) -> None:
    figures = sys.modules["figures"]
    low, high = figures.over_seeds([0.1, 0.2, 0.3], 0.95)
    assert (low, high) == pytest.approx((0.2 - 4.302653 * 0.1 / 3**0.5, 0.2 + 4.302653 * 0.1 / 3**0.5))
    assert figures.over_seeds([0.0, 0.0], 0.95) is None, "no certainty that the data do not give"
    old = [{"seed": seed, "outcomes": {"t": dict.fromkeys("abcdefgh", False)}} for seed in (0, 1)]
    new = [{"seed": seed, "outcomes": {"t": dict.fromkeys("abcdefgh", seed == 1)}} for seed in (0, 1)]
    gain = figures.gain(old, new, "t", 0.95)
    assert gain.pairs.low > 0
    assert gain.by_seed == (0.0, 1.0)
    assert not gain.better, "one seed of two says nothing about the next"
    once = figures.gain(new[1:], old[1:], "t", 0.95)
    assert once.worse
    assert not once.better
    assert not figures.gain(new, old, "t", 0.95).worse


def test_how_often_a_probe_alarms_is_the_share_of_all_draws(benchmark: ModuleType) -> None:
    probes = importlib.import_module("probes")
    changes = [1] * 4 + [-1] * 2 + [0] * 5  # what each held-out task says of a loss
    draws = [sum(drawn) / 6 > 0.15 for drawn in combinations(changes, 6)]
    assert probes.alarm_rate(4, 2, 5, 6, 0.15) == pytest.approx(sum(draws) / len(draws))
    outcomes = [{"a": True, "b": True, "c": False}, {"a": False, "b": False, "c": True}, {"b": True, "c": False}]
    cells = [
        {"world": "toy", "seed": 0, "arm": arm, "outcomes": {"trained families": each}}
        for arm, each in zip(["SFT", "GRPO", "SDPO"], outcomes, strict=True)
    ]
    found = [pairs for _, pairs in probes.changes(cells, {"GRPO", "SDPO"})]
    assert found == [{(True, False): 2, (False, True): 1}, {(True, True): 1, (False, False): 1}]


@pytest.mark.parametrize("name", ["toy", "short", "full"])
def test_plans_are_sound(benchmark: ModuleType, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark.main([str(HERE / f"{name}.toml"), "--check"])
    read = benchmark.read(HERE / f"{name}.toml")
    assert {"SFT longer", "GRPO", "SDPO", "GRPO+SDPO"} <= read.arms.keys()
    assert read.episodes >= 50
    assert "unseen none" not in capsys.readouterr().out
