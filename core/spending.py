"""Saying what work will cost before it starts, and what it did cost after."""

from collections.abc import Iterator
from contextlib import contextmanager

from tutelage.forecast import Forecast, Work, forecast
from tutelage.giving_up import unfinished
from tutelage.progress import Reporter
from tutelage.usage import Usage, money
from tutelage.workspace import Workspace


@contextmanager
def accounted(workspace: Workspace, report: Reporter, work: Work, tasks: int = 0) -> Iterator[None]:
    """Announce the work, let it be done, and say what it cost, also where it was stopped."""
    before, expected = workspace.usage.total(), announce(workspace, report, work, tasks)
    try:
        yield
    finally:
        settle(workspace, report, before, expected)


def announce(workspace: Workspace, report: Reporter, work: Work, tasks: int = 0) -> Forecast:
    """One line on the calls that go over a network, and a warning if a limit will stop the work; where everything is
    scripted and no limit is near there is nothing to say."""
    cycles = to_go(workspace, work)
    expected = forecast(workspace, work, tasks, cycles=cycles)
    cassette = workspace.config.cassette
    if not expected.lines or not cycles:
        return expected
    if cassette.path and cassette.mode == "replay":
        report.say(f"  replaying {cassette.path}: nobody is called and nothing is spent")
        return expected
    if expected.paid:
        models = ", ".join(sorted({line.model for line in expected.paid}))
        all_of = f" for the {cycles} cycles to go" if cycles > 1 else ""
        report.say(f"  forecast for {models}: about {told(expected)}{all_of}; `tutelage cost` has the details")
    for line in warnings(workspace, expected.total):
        report.say(f"  [yellow]{line}[/yellow]")
    return expected


def settle(workspace: Workspace, report: Reporter, before: Usage, expected: Forecast) -> None:
    """What was spent since `before`, beside the forecast; nothing where nobody was asked over a network."""
    spent = workspace.usage.total().minus(before)
    if spent.replayed or (expected.paid and spent.calls):
        report.say(f"  LLM use: {spent} (forecast: {told(expected)})")


def told(expected: Forecast) -> str:
    """Calls, tokens and dollars in a few words, without those of scripted experts."""
    paid = expected.paid
    unknown = sorted({line.model for line in paid if line.dollars is None})
    dollars = money(sum(line.dollars or 0.0 for line in paid))
    costs = f"no known price for {', '.join(unknown)}" if unknown else dollars
    if unknown and len(unknown) < len({line.model for line in paid}):
        costs = f"{dollars} and {costs}"
    tokens = sum(line.prompt_tokens + line.completion_tokens for line in paid)
    return f"{sum(line.calls for line in paid):,} calls, {tokens:,} tokens, {costs}"


def warnings(workspace: Workspace, expected: Usage) -> list[str]:
    """A line per limit that the forecast goes beyond."""
    budget, spent = workspace.config.budget, workspace.usage.total()
    found = []
    for name in ("calls", "tokens", "dollars"):
        limit, left = getattr(budget, name), getattr(budget, name) - getattr(spent, name)
        wanted = getattr(expected, name)
        if limit and wanted > left:
            found.append(
                f"budget.{name} leaves {max(0, left):,.6g} of {limit:,g} and about {wanted:,.6g} are needed; "
                "the work will stop there, with everything saved"
            )
    return found


def to_go(workspace: Workspace, work: Work) -> int:
    """Cycles that the command has to do; 1 for other work."""
    if work != "run":
        return 1
    done = sum(body["kind"] == "run" for body in workspace.record.items("loop").values())
    return len(unfinished(workspace.record)) + max(0, workspace.config.loop.cycles - done)
