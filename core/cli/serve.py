"""The command that runs by itself: the student behind an endpoint, and the jobs that triggers start."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tutelage.cli.app import ConfigOption, SetOption, app, opened
from tutelage.cli.logs import log_to_stderr
from tutelage.cli.memory import who
from tutelage.cli.serving import TokensOption, address_of, check_tls, listen, needed, tokens_needed, warn_unencrypted
from tutelage.errors import ConfigError

if TYPE_CHECKING:
    from tutelage.config import Config
    from tutelage.jobs.scheduler import Scheduler
    from tutelage.memory.server.auth import Tokens
    from tutelage.serving.server import Answering
    from tutelage.workspace import Workspace


@app.command("serve")
def serve(
    host: Annotated[str, typer.Option(help="Address to listen at; others than this machine need keys.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    chat: Annotated[bool, typer.Option("--chat/--no-chat", help="Answer OpenAI-compatible requests.")] = True,
    jobs: Annotated[bool, typer.Option("--jobs/--no-jobs", help="Fire triggers and work off jobs.")] = True,
    certificate: Annotated[Path | None, typer.Option(help="TLS certificate chain, PEM.")] = None,
    key: Annotated[Path | None, typer.Option(help="TLS private key, PEM.")] = None,
    tokens: TokensOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Serve the promoted student as OpenAI's API does, fire triggers and work off jobs, until stopped.

    Keys are the tokens that `tutelage memory token NAME` makes; where there are any, each client needs one.
    """
    if not chat and not jobs:
        raise ConfigError("--no-chat and --no-jobs leave nothing to do")
    check_tls(certificate, key)
    with needed():
        from tutelage.serving.retention import Tending
        from tutelage.serving.server import Listening, Part, run, threaded

    parts: list[Part] = []
    with (
        opened(config, overrides, existing=config is None, remember=config is not None) as workspace,
        ExitStack() as held,
    ):
        if jobs:
            parts.append(threaded(held.enter_context(_scheduler(workspace)).run))
        summary = _jobs_shown(workspace.config) if jobs else "no jobs"
        if chat:
            known = tokens_needed(workspace.config, tokens, host, None)
            listening = held.enter_context(listen(host, port))
            answering = _answering(workspace, known, host)
            address = f"{address_of(listening, host, certificate)}/v1"
            warn_unencrypted(host, certificate)

            def ready() -> None:
                print(f"{_chat_shown(answering, address, known)}; {summary}", flush=True)

            parts.append(partial(answering.run, Listening(listening, certificate, key), ready))
            parts += [threaded(Tending(workspace.config).run)] if workspace.config.serve.learning.record else []
        else:
            print(f"{workspace.folder}: {summary}", flush=True)
        log_to_stderr()
        run(*parts)


@contextmanager
def _scheduler(workspace: "Workspace") -> Iterator["Scheduler"]:
    from tutelage.jobs.dispatcher import Dispatcher
    from tutelage.jobs.launcher import launcher
    from tutelage.jobs.scheduler import Scheduler

    folder, config = workspace.folder, workspace.config
    started = launcher(config.jobs, folder)
    scheduler = Scheduler(folder, config, Dispatcher(workspace.record, folder, config, started))
    try:
        yield scheduler
    finally:
        scheduler.close()


def _answering(workspace: "Workspace", tokens: "Tokens | None", host: str) -> "Answering":
    from tutelage.memory.server.auth import Caller, is_loopback
    from tutelage.serving.app import Endpoint, make_app
    from tutelage.serving.assist import Assistance
    from tutelage.serving.server import Answering
    from tutelage.serving.students import LiveStudents

    config, loopback = workspace.config, is_loopback(host)
    students = LiveStudents(workspace.folder, workspace.record, config)
    assist = Assistance(workspace)
    endpoint = Endpoint(assist, students, config.serve)
    anyone = None if tokens else Caller(who(""), config.memory.tenant)
    served = make_app(endpoint, config.serve, tokens=tokens, anyone=anyone, loopback=loopback)
    return Answering(served, endpoint, students, assist, config.serve)


def _chat_shown(answering: "Answering", address: str, tokens: "Tokens | None") -> str:
    config = answering.config
    label = answering.students.loaded()[0].label
    parts = [
        f"{label} at {address} ({'by key' if tokens else 'no key needed'})",
        f"memory {'on' if config.memory else 'off'} unless asked otherwise",
        f"conversations {'recorded, redacted, unless asked otherwise' if config.learning.record else 'not recorded'}",
    ]
    return "; ".join(parts)


def _jobs_shown(config: "Config") -> str:
    names = [trigger.name for trigger in config.triggers if trigger.enabled]
    return f"jobs worked off, triggers: {', '.join(names) or 'none'}"
