"""Commands that read and keep the memory."""

from typing import Annotated

import typer

from tutelage.cli.app import ConfigOption, JsonOption, SetOption, app, emit_json, emit_rows, opened
from tutelage.experience import IN_USE, Kind, Status

memory = typer.Typer(help="Query and keep the experience store.", no_args_is_help=True)
app.add_typer(memory, name="memory")


@memory.command("query")
def query(
    text: Annotated[str, typer.Argument(help="What to look for, in words.")],
    kind: Annotated[Kind | None, typer.Option(help="Only this kind.")] = None,
    environment: Annotated[str | None, typer.Option(help="Only this environment.")] = None,
    family: Annotated[str | None, typer.Option(help="Only this task family.")] = None,
    status: Annotated[str, typer.Option(help="Only this status; default: those in use.")] = "",
    k: Annotated[int, typer.Option("-k", min=1, help="How many.")] = 5,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search the memory by meaning and by keyword."""
    from tutelage.memory.query import Query

    with opened(config, overrides) as workspace:
        statuses = [Status(status)] if status else IN_USE
        wanted = Query(text, [kind] if kind else (), environment, family, statuses, k=k)
        hits = workspace.memory.search(wanted)
        rows = [
            {
                "score": hit.score,
                "kind": hit.experience.kind,
                "family": hit.experience.family,
                "text": workspace.memory.render(hit.experience),
                "id": hit.experience.id,
                "vector": hit.vector,
                "keyword": hit.keyword,
                "experience": hit.experience.model_dump(mode="json"),
            }
            for hit in hits
        ]
    emit_rows(rows, ("score", "kind", "family", "text", "id"), as_json=as_json, empty="nothing found")


@memory.command("show")
def show(
    id: Annotated[str, typer.Argument(help="Id of an experience.")],
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """One experience with its history and the steps it came from."""
    with opened(config, overrides) as workspace:
        experience = workspace.record.experience(id)
        history = workspace.record.history(id)
        steps = [
            {
                "trajectory": trajectory.id,
                "task": trajectory.task.id,
                "goal": trajectory.goal,
                "ending": trajectory.ending,
                "step": index,
                **step.model_dump(mode="json", exclude={"tokens"}),
            }
            for trajectory, step, index in workspace.memory.sources(id)
        ]
    if as_json:
        emit_json(
            {
                "experience": experience.model_dump(mode="json"),
                "versions": [version.model_dump(mode="json") for version in history],
                "steps": steps,
            }
        )
        return
    print(f"{experience.kind} {experience.id} v{experience.version} ({experience.status}), by {experience.author}")
    print(f"environment {experience.environment}, family {experience.family}\ngoal  {experience.goal}")
    for key, value in experience.content.model_dump(exclude={"kind"}).items():
        print(f"{key}: {value if isinstance(value, str) else ''}")
        if not isinstance(value, str):
            print("\n".join(f"  - {item}" for item in value))
    print(f"came from {len(experience.sources)} trajectories, {len(steps)} steps:")
    for step in steps:
        cause = step["diagnosis"]["cause"]
        print(f"  {step['trajectory']} step {step['step']}: {step['action']}  [{cause}]  {step['goal']}")


@memory.command("stats")
def stats(config: ConfigOption = None, overrides: SetOption = None, as_json: JsonOption = False) -> None:
    """How much of what the memory holds."""
    with opened(config, overrides) as workspace:
        figures = workspace.memory.stats()
    if as_json:
        emit_json(figures)
        return
    for key, value in figures.items():
        print(f"{key}: {value}")


@memory.command("reindex")
def reindex(config: ConfigOption = None, overrides: SetOption = None) -> None:
    """Throw the vector index away and build it anew from the record."""
    with opened(config, overrides) as workspace:
        print(f"{workspace.memory.reindex()} experiences indexed")
