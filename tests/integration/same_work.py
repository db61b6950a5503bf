"""What a workspace's record must have in common with that of another where the same was done."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from sqlalchemy import select

from tutelage.fingerprint import fingerprint
from tutelage.record import Record
from tutelage.record_tables import JOB_LINES, JOB_MOVES, JOBS, LEASES, METADATA

UNLIKE = ("timing", "usage", "usage-cycle")
"""Documents that say how long something took and how often it was asked for."""
QUEUE = tuple(table.name for table in (JOBS, JOB_MOVES, LEASES, JOB_LINES))


def happened(
    record: Record, *places: Path, queue: bool = True, without: Collection[str] = ()
) -> dict[str, list[dict[str, Any]]]:
    """Everything in a record but times, names and places.

    Args:
        places: folders that are called the same.
        queue: whether by jobs; otherwise nothing of them is left, as if all had been done by hand.
        without: further kinds of documents that differ.
    """
    with record.reading() as connection:
        tables = {
            name: [dict(row._mapping) for row in connection.execute(select(table).order_by(*table.primary_key))]
            for name, table in METADATA.tables.items()
            if queue or name not in QUEUE
        }
    tables["documents"] = [row for row in tables["documents"] if row["kind"] not in {*UNLIKE, *without}]
    for row in tables["documents"]:
        if row["kind"] == "loop" and not queue:
            row["body"] = json.dumps({name: value for name, value in json.loads(row["body"]).items() if name != "job"})
    text = json.dumps(fingerprint(tables))
    for place in places:
        text = text.replace(str(place), "WORKSPACE")
    placeless: dict[str, list[dict[str, Any]]] = json.loads(text)
    return placeless
