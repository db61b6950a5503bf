"""`tutelage memory review` and `tutelage memory audit`: what is not trusted, and where it went."""

from typing import TYPE_CHECKING, Any

from tutelage.cli.app import ConfigOption, JsonOption, SetOption, emit_json, emit_rows
from tutelage.cli.memory import TenantOption, memory, memory_of

if TYPE_CHECKING:
    from tutelage.experience import Experience
    from tutelage.memory.audit import Entry


@memory.command("review")
def review(
    tenant: TenantOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """What waits for a person: quarantined experiences, and contradictions that nothing has resolved."""
    from tutelage.memory.audit import in_review
    from tutelage.memory.contradictions import open_contradictions

    with memory_of(config, overrides, tenant) as workspace:
        aside = [_aside(item) for item in in_review(workspace.memory)]
        apart = [
            {"first": found.first, "second": found.second, "why": found.reason}
            for found in open_contradictions(workspace.memory, workspace.record)
        ]
    if as_json:
        emit_json({"quarantined": aside, "contradictions": apart})
        return
    columns = ("id", "kind", "trust", "why", "from", "text")
    emit_rows(aside, columns, as_json=False, empty="nothing is in quarantine")
    if aside:
        print("`tutelage memory approve ID` takes one into use as it is, `tutelage memory retire ID` puts it away")
    if apart:
        print()
        emit_rows(apart, ("first", "second", "why"), as_json=False, empty="")


@memory.command("audit")
def audit(
    tenant: TenantOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """What an attacker could have written: each experience with a source that is not trusted, its chain of sources,
    and where it went."""
    from tutelage.memory.audit import audit as audited

    with memory_of(config, overrides, tenant) as workspace:
        entries = audited(workspace.memory, workspace.record, workspace.trust)
        every = len(workspace.memory.experiences())
    if as_json:
        emit_json([_entry(entry) for entry in entries])
        return
    rows = [_entry(entry) for entry in entries]
    columns = ("id", "kind", "status", "words", "trust", "from", "shown", "students", "text")
    emit_rows(rows, columns, as_json=False, empty="every source of every experience is trusted")
    theirs = sum(entry.words == "theirs" and entry.shown > 0 for entry in entries)
    print(
        f"{len(entries)} of {every} experiences have a source that is not trusted; {theirs} in a stranger's words were "
        f"ever shown; {sum(bool(entry.students) for entry in entries)} took part in training"
    )


def _aside(item: "Experience") -> dict[str, Any]:
    from tutelage.memory.text import render

    return {
        "id": item.id,
        "kind": item.kind,
        "environment": item.environment,
        "family": item.family,
        "trust": round(item.trust, 3),
        "why": item.change.reason,
        "from": ", ".join(dict.fromkeys(source.origin for source in item.sources)),
        "text": render(item),
    }


def _entry(entry: "Entry") -> dict[str, Any]:
    from tutelage.memory.text import render

    item = entry.experience
    return {
        "id": item.id,
        "kind": item.kind,
        "environment": item.environment,
        "family": item.family,
        "status": item.status.value,
        "words": entry.words,
        "trust": round(item.trust, 3),
        "from": ", ".join(dict.fromkeys(origin.voice for origin in entry.origins)),
        "shown": entry.shown,
        "students": ", ".join(entry.students),
        "trained on its source": list(entry.trained_on_source),
        "text": render(item),
        "said": render(entry.said) if entry.said else "",
        "sources": [
            {
                "origin": origin.source.origin,
                "voice": origin.voice,
                "trust": origin.trust,
                "trajectory": origin.source.trajectory,
                "task": origin.source.task,
                "steps": list(origin.source.steps),
                "policy": origin.policy,
                "in the record": origin.known,
            }
            for origin in entry.origins
        ],
    }
