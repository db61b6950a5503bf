"""Commands that let other programs query the memory: a server over HTTP and MCP, MCP on stdio, tokens."""

import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tutelage.cli.app import ConfigOption, SetOption, load
from tutelage.cli.memory import TenantOption, memory, who
from tutelage.errors import ConfigError, MissingPart

if TYPE_CHECKING:
    from tutelage.config import Config
    from tutelage.memory.server.auth import Tokens
    from tutelage.memory.server.service import Service

CONNECTIONS = 100
"""Requests under way at once; one more is told to come back."""
SHUTDOWN = 5
"""Seconds that requests under way get when the server is stopped."""

WriteOption = Annotated[bool, typer.Option("--write", help="Let clients add and change experiences too.")]
TokensOption = Annotated[Path | None, typer.Option("--tokens", help="Tokens file; default: in the workspace.")]


@memory.command("serve")
def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen at; others than this machine need tokens.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8765,
    write: WriteOption = False,
    tokens: TokensOption = None,
    tenant: TenantOption = None,
    certificate: Annotated[Path | None, typer.Option(help="TLS certificate chain, PEM.")] = None,
    key: Annotated[Path | None, typer.Option(help="TLS private key, PEM.")] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Answer queries over HTTP (described at /openapi.json) and MCP (at /mcp) until stopped; read-only unless told.

    With tokens, each client needs one and sees the tenant of its token only.
    """
    found = _config(config, overrides, tenant)
    check_tls(certificate, key)
    with needed():
        import uvicorn

        from tutelage.memory.server.auth import Caller, is_loopback
        from tutelage.memory.server.http import make_app
    known = tokens_needed(found, tokens, host, tenant)
    anyone = None if known else Caller(who(""), found.memory.tenant, write)
    loopback = is_loopback(host)
    with listen(host, port) as listening, _service(found, write) as service:
        if anyone:
            service.store(anyone.tenant)  # what cannot be opened is said now, not to the first client
        settings = uvicorn.Config(
            make_app(service, tokens=known, anyone=anyone, loopback=loopback),
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=SHUTDOWN,
            ws="none",
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
        address = address_of(listening, host, certificate)
        rights = f"{'read and write' if write else 'read-only'}, {'by token' if known else 'no token needed'}"
        print(f"memory of {found.workspace} at {address} ({rights}); MCP at /mcp", flush=True)
        warn_unencrypted(host, certificate)
        uvicorn.Server(settings).run(sockets=[listening])


@memory.command("mcp")
def mcp(
    write: WriteOption = False,
    tenant: TenantOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Speak MCP on standard input and output, for a client that starts this command; read-only unless told."""
    found = _config(config, overrides, tenant)
    with needed():
        from tutelage.memory.server.auth import Caller
        from tutelage.memory.server.mcp import stdio_server
    with _service(found, write) as service:
        caller = Caller(who(""), found.memory.tenant, write)
        service.store(caller.tenant)
        stdio_server(service, caller).run()


@memory.command("token")
def token(
    name: Annotated[str, typer.Argument(help="Whose token; changes are kept under this name.")],
    tenant: TenantOption = None,
    write: Annotated[bool, typer.Option("--write", help="The token may write, where the server lets anybody.")] = False,
    revoke: Annotated[bool, typer.Option("--revoke", help="Take the token of that name away; at once.")] = False,
    tokens: TokensOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Make a token for `memory serve` and print it, once; only its digest is kept."""
    from tutelage.memory.server.auth import TOKENS_FILE, make_token, revoke_token

    found = _config(config, overrides, tenant)
    path = tokens or found.workspace / TOKENS_FILE
    if revoke:
        revoke_token(path, name)
        print(f"the token of {name} is no longer valid")
        return
    whose = found.memory.tenant
    print(make_token(path, name, tenant=whose, write=write))
    typer.echo(f"for {name}: {'reads and writes' if write else 'reads'} the memory of {whose}; kept nowhere", err=True)


def _config(config: Path | None, overrides: list[str] | None, tenant: str | None) -> "Config":
    mine = [f"memory.tenant={json.dumps(tenant)}"] if tenant is not None else []
    return load(config, [*(overrides or []), *mine], existing=True)


@contextmanager
def needed() -> Iterator[None]:
    """Raises MissingPart: what a server is made of is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingPart(f"{error.name} is not installed; run: pip install 'tutelage[memory,serve]'") from error


@contextmanager
def _service(config: "Config", write: bool) -> Iterator["Service"]:
    from tutelage.config import INDEX
    from tutelage.memory.server.service import Service
    from tutelage.memory.trust import with_declared
    from tutelage.record import Record

    record = Record.open(config.workspace, create=False)
    try:
        service = Service(record, config.workspace / INDEX, with_declared(config), write=write)
        try:
            yield service
        finally:
            service.close()
    finally:
        record.close()


def tokens_needed(config: "Config", path: Path | None, host: str, tenant: str | None) -> "Tokens | None":
    """The tokens that clients need; None where there are none and none are needed."""
    from tutelage.memory.server.auth import TOKENS_FILE, Tokens, is_loopback

    usual = config.workspace / TOKENS_FILE
    if path is None and not usual.exists():
        if not is_loopback(host):
            raise ConfigError(
                f"others than this machine reach {host}, so clients need tokens; `tutelage memory token NAME` makes one"
            )
        return None
    if tenant:
        raise ConfigError("with tokens, each token says whose memory it opens; leave --tenant out")
    return Tokens(path or usual)


def check_tls(certificate: Path | None, key: Path | None) -> None:
    """Raises ConfigError: only one of the two is given, or they are not usable together."""
    if (certificate is None) is not (key is None):
        raise ConfigError("TLS needs both --certificate and --key")
    if certificate is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
        except OSError as error:  # what the SSL library raises, too
            raise ConfigError(f"cannot use {certificate} with {key}: {error.strerror or error}") from error


def warn_unencrypted(host: str, certificate: Path | None) -> None:
    """Say on stderr what others on the network could read."""
    from tutelage.memory.server.auth import is_loopback

    if certificate is None and not is_loopback(host):
        typer.echo("warning: tokens and texts travel unencrypted; give --certificate and --key", err=True)


def address_of(listening: socket.socket, host: str, certificate: Path | None) -> str:
    """What clients are told to connect to."""
    name = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"{'https' if certificate else 'http'}://{name}:{listening.getsockname()[1]}"


def listen(host: str, port: int) -> socket.socket:
    """Raises ConfigError: the address is not this machine's, or the port is taken."""
    plain = host.strip("[]")
    family = socket.AF_INET6 if ":" in plain else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((plain, port))
        listening.listen()  # who comes between here and the first answer waits
    except OSError as error:
        listening.close()
        raise ConfigError(f"cannot listen at {host}:{port}: {error.strerror or error}") from error
    return listening
