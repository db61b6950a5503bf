"""`tutelage memory benchmark`: how well search finds what fits."""

from typing import Annotated

import typer

from tutelage.cli.app import ConfigOption, JsonOption, SetOption, emit_json, emit_rows
from tutelage.cli.memory import TenantOption, memory, memory_of


@memory.command("benchmark")
def benchmark(
    per_family: Annotated[
        int, typer.Option("--per-family", min=1, help="Questions of each sort per task family at most.")
    ] = 4,
    tenant: TenantOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask the memory about the workspace's own train episodes and measure how well each way of searching answers.

    What was drawn from the task that a question is about never counts as an answer.
    """
    from tutelage.benchmarking import benchmark
    from tutelage.retrieval import MEASURES

    with memory_of(config, overrides, tenant) as workspace:
        found = benchmark(workspace, per_family)
    rows = found.rows()
    if as_json:
        emit_json({"experiences": found.experiences, "questions": len(found.questions), "searches": rows})
        return
    sorts = [key for key in rows[0] if key.startswith("MRR: ")]
    print(f"{len(found.questions)} questions about {found.experiences} experiences in use; mean [95 % interval]")
    table = [
        {"search": row["search"]}
        | {name: f"{row[name]:.3f} [{row[name + ' low']:.3f}, {row[name + ' high']:.3f}]" for name in MEASURES}
        for row in rows
    ]
    emit_rows(table, ("search", *MEASURES), as_json=False, empty="")
    print("\nMRR by sort of question")
    short = [{"search": row["search"]} | {key.removeprefix("MRR: "): row[key] for key in sorts} for row in rows]
    emit_rows(short, ("search", *(key.removeprefix("MRR: ") for key in sorts)), as_json=False, empty="")
