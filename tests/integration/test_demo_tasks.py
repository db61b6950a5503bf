"""The demo's tasks have real variety: few of its held-out tasks can have occurred in training."""

from pathlib import Path

from tutelage.config import load_config
from tutelage.environments import environment_class
from tutelage.evaluate import pair_key
from tutelage.types import Split

DEMO = Path(__file__).resolve().parents[2] / "configs" / "demo.toml"
SEEDS, DISTINCT = 200, 150


def test_each_family_has_many_distinct_tasks(full_counts: bool) -> None:
    config = load_config(DEMO).environments[0]
    assert len(config.families) >= 8
    count = SEEDS if full_counts else SEEDS // 10
    environment = environment_class(config.name)()
    try:
        for family in config.families:
            pairs = set()
            for task in environment.tasks(Split.TRAIN, [family], count=count):
                observation, info = environment.reset(options={"task": task})
                pairs.add(pair_key(info["goal"], observation))
            assert len(pairs) >= DISTINCT * count // SEEDS, family
    finally:
        environment.close()
