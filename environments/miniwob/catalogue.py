"""Which MiniWoB++ task families there are, where their pages lie, and BrowserGym's split of them."""

import csv
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from tutelage.errors import MissingPart
from tutelage.types import Split


@cache
def split_of_families() -> dict[str, Split]:
    """BrowserGym's split: 62 families to train on and 63 to test on; related ones lie on one side.

    Read from ``split.csv``; LICENSE.split.md says where it comes from.
    """
    text = files("tutelage.environments.miniwob").joinpath("split.csv").read_text()
    return {row["family"]: Split(row["split"]) for row in csv.DictReader(text.splitlines())}


def official_split(split: Split) -> tuple[str, ...]:
    """The families on one side of BrowserGym's split, sorted."""
    return tuple(sorted(family for family, side in split_of_families().items() if side is split))


def pages_root() -> Path:
    """Folder of all files that pages may load.

    Raises:
        MissingPart: the pages are not installed.
    """
    spec = find_spec("miniwob")
    root = Path(spec.origin).parent / "html" if spec and spec.origin else None
    if root is None or not (root / "miniwob").is_dir():
        raise MissingPart("the MiniWoB++ pages are not installed; run: pip install --no-deps miniwob==1.1.0")
    return root


def page_url(family: str) -> str:
    """The ``file://`` URL of a family's page."""
    return (pages_root() / "miniwob" / f"{family}.html").as_uri()
