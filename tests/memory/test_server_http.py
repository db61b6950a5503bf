"""Over HTTP each caller gets what its token allows, in clear words otherwise, and nothing brings the server down."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tutelage.errors import ConfigError
from tutelage.experience import Change, Experience, Status
from tutelage.memory.server.auth import Caller, Tokens, is_loopback, make_token, read_tokens, revoke_token
from tutelage.memory.server.guard import Guard
from tutelage.memory.server.schemas import MAX_BODY

Serve = Callable[..., Any]
SKILL = {"kind": "skill", "preconditions": [], "procedure": ["press save"], "verification": []}
NEW = {"environment": "toy", "family": "forms", "goal": "keep the form", "content": SKILL}


def said(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of an answer that is no success; its body has the one form."""
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message"}
    return answer.status_code, body["error"]["code"]


def test_reading(serve: Serve) -> None:
    serving = serve()
    first = serving.learn("default", "log in with a password", 'fill("r1", "ann")', 'click("r2")')
    serving.learn("default", "book a flight")
    serving.service.store("default").change(first.id, Change(by="hand:ann", reason="clearer"), core="Log in.")
    with serving.client() as client:
        assert client.get("/health").json() == {"status": "ok"}
        hits = client.post("/v1/search", json={"text": "sign in with user and password", "k": 1}).json()["hits"]
        assert [(hit["id"], hit["version"], hit["status"]) for hit in hits] == [(first.id, 2, "active")]
        assert sum(hits[0]["parts"].values()) == pytest.approx(hits[0]["score"])
        assert client.get(f"/v1/experiences/{first.id}").json()["core"] == "Log in."
        versions = client.get(f"/v1/experiences/{first.id}/history").json()["versions"]
        assert [(item["version"], item["change"]["reason"]) for item in versions][-1] == (2, "clearer")
        steps = client.get(f"/v1/experiences/{first.id}/sources").json()
        assert (steps["total"], steps["steps"][0]["action"], steps["steps"][0]["index"]) == (1, 'click("r2")', 1)
        assert client.get("/v1/stats").json()["experiences"] == 2
        assert client.get("/openapi.json").json()["info"]["title"] == "Tutelage memory"
        assert client.options(f"/v1/experiences/{first.id}").headers["allow"] == "GET, PATCH"


@pytest.mark.parametrize(
    ("method", "path", "sent", "expected"),
    [
        ("GET", "/v1/experiences/exp_none", {}, (404, "not_found")),
        ("GET", "/nowhere", {}, (404, "not_found")),
        ("DELETE", "/v1/stats", {}, (405, "method_not_allowed")),
        ("POST", "/v1/search", {"json": {"text": "x", "k": 101}}, (422, "invalid")),
        ("POST", "/v1/search", {"json": {"text": "x" * 8001}}, (422, "invalid")),
        ("POST", "/v1/search", {"json": {"text": "x", "since": "2026-01-01T00:00:00"}}, (422, "invalid")),
        ("POST", "/v1/search", {"json": {"text": "x", "since": "0001-01-01T00:00:00+14:00"}}, (422, "invalid")),
        ("POST", "/v1/search", {"json": {"text": "x", "nonsense": 1}}, (422, "invalid")),
        ("POST", "/v1/search", {"content": b'{"text": "\\ud800"}'}, (422, "invalid")),
        ("POST", "/v1/search", {"content": b'{"text": "x", "min_trust": NaN}'}, (422, "invalid")),
        ("POST", "/v1/search", {"content": b'{"text": '}, (400, "bad_request")),
        ("POST", "/v1/search", {"content": b"[" * 100_000}, (400, "bad_request")),
        ("POST", "/v1/search", {"content": b"\xff\xfe"}, (400, "bad_request")),
        ("POST", "/v1/search", {"content": b"x" * (MAX_BODY + 1)}, (413, "too_large")),
        ("POST", "/v1/search", {"content": b"{}", "headers": {"content-type": "text/plain"}}, (415, "unsupported")),
        ("POST", "/v1/experiences", {"json": NEW}, (403, "forbidden")),
        ("POST", "/mcp", {"content": b"x" * (MAX_BODY + 1)}, (413, "too_large")),
    ],
)
def test_what_cannot_be_done_is_said_clearly(
    serve: Serve, method: str, path: str, sent: dict[str, Any], expected: tuple[int, str]
) -> None:
    with serve().client(**{"content-type": "application/json"}) as client:
        assert said(client.request(method, path, **sent)) == expected
        assert client.get("/health").status_code == 200


def test_a_body_without_a_length_is_cut_off_too(serve: Serve) -> None:
    with serve().client(**{"content-type": "application/json"}) as client:
        endless = (b" " * 65536 for _ in range(MAX_BODY // 65536 + 2))
        assert said(client.post("/v1/search", content=endless)) == (413, "too_large")


def test_pages_in_a_browser_cannot_reach_a_server_on_loopback(serve: Serve) -> None:
    serving = serve(write=True)
    with serving.client() as client:
        for bad in ({"host": "evil.example"}, {"host": "127.0.0.1.evil.example:80"}, {"origin": "http://evil.example"}):
            assert said(client.get("/v1/stats", headers=bad)) == (421, "misdirected")
            assert said(client.get("/health", headers=bad)) == (421, "misdirected")
        assert said(client.get("/v1/stats", headers={"origin": "null"})) == (421, "misdirected")
        port = serving.url.rpartition(":")[2]
        for good in (f"localhost:{port}", "127.0.0.1", f"[::1]:{port}"):
            assert client.get("/v1/stats", headers={"host": good}).status_code == 200
    with socket.create_connection(("127.0.0.1", int(port))) as raw:
        raw.sendall(b"GET /v1/stats HTTP/1.0\r\n\r\n")  # no Host at all
        assert b"421" in raw.recv(1000).splitlines()[0]


def test_writing_goes_through_admission_and_keeps_who_and_why(serve: Serve) -> None:
    serving = serve(write=True)
    with serving.client() as client:
        added = client.post("/v1/experiences", json={**NEW, "reason": "seen twice"})
        assert added.status_code == 201
        item = added.json()
        place = f"/v1/experiences/{item['id']}"
        assert (item["status"], item["sources"][0]["origin"], item["author"]) == ("candidate", "user:me", "user:me")
        assert client.post("/v1/experiences", json=NEW).json()["id"] == item["id"]
        changed = client.patch(place, json={"reason": "shorter", "goal": "save", "version": item["version"]}).json()
        assert (changed["goal"], changed["version"]) == ("save", item["version"] + 1)
        assert said(client.patch(place, json={"reason": "late", "goal": "x", "version": 1})) == (409, "conflict")
        assert said(client.patch(place, json={"reason": "nothing"})) == (422, "invalid")
        assert said(client.patch(place, json={"reason": "own status", "status": "active"})) == (422, "invalid")
        assert client.post(f"{place}/undo").json()["goal"] == "keep the form"
        assert client.post(f"{place}/approve", json={"reason": "checked"}).json()["status"] == "active"
        assert said(client.post(f"{place}/retire", json={"reason": " "})) == (422, "invalid")
        assert client.post(f"{place}/retire", json={"reason": "old"}).json()["status"] == "retired"
        by = [item["change"]["by"] for item in client.get(f"{place}/history").json()["versions"]]
        assert by == ["hand:me", "hand:me", "hand:me", "review:me", "review:me"]
        bad = {"kind": "guardrail", "trigger": [], "root_cause": "", "forbidden": "click(**)", "remedy": ""}
        assert said(client.post("/v1/experiences", json={**NEW, "content": bad})) == (422, "refused")
        nameless = {name: value for name, value in SKILL.items() if name != "kind"}
        assert said(client.post("/v1/experiences", json={**NEW, "content": nameless})) == (422, "invalid")
        assert client.get(f"{place}/sources").json() == {"total": 0, "offset": 0, "steps": []}
        held = {**NEW, "sources": [{"trajectory": "t", "task": "t"}]}
        assert said(client.post("/v1/experiences", json=held)) == (422, "invalid")


def test_forgetting(serve: Serve) -> None:
    serving = serve(write=True)
    with serving.client() as client:
        item = client.post("/v1/experiences", json=NEW).json()
        assert client.post(f"/v1/experiences/{item['id']}/forget", json={"reason": "private"}).status_code == 200
        assert said(client.get(f"/v1/experiences/{item['id']}"))[0] in (404, 410)
        assert client.post("/v1/search", json={"text": "keep the form", "statuses": []}).json()["hits"] == []


TWO = {"ann": ("a", True), "bob": ("b", True), "eve": ("a", False)}


def test_tokens_tell_tenants_and_rights_apart(serve: Serve) -> None:
    serving = serve(write=True, tokens=TWO)
    secrets = {name: (serving.folder / f"{name}.secret").read_text() for name in TWO}
    mine = serving.learn("a", "log in with a password")
    theirs = serving.learn("b", "log in with a key")
    for wrong in ("", "tut_wrong", secrets["ann"][:-1], secrets["ann"] + "x"):
        with serving.client(wrong) as client:
            answer = client.get("/v1/stats")
            assert said(answer) == (401, "unauthenticated")
            assert answer.headers["www-authenticate"] == "Bearer"
            assert said(client.post("/mcp", json={})) == (401, "unauthenticated")
            assert said(client.get("/openapi.json")) == (401, "unauthenticated")
    with serving.client(secrets["ann"]) as ann, serving.client(secrets["bob"]) as bob:
        found = ann.post("/v1/search", json={"text": "log in", "k": 100, "statuses": []}).json()["hits"]
        assert [hit["id"] for hit in found] == [mine.id]
        for path in ("", "/history", "/sources"):
            assert said(ann.get(f"/v1/experiences/{theirs.id}{path}")) == (404, "not_found")
        missing = ann.get(f"/v1/experiences/{theirs.id}").json()["error"]["message"]
        assert missing.replace(theirs.id, "exp_none") == ann.get("/v1/experiences/exp_none").json()["error"]["message"]
        for action in ("retire", "approve", "forget"):
            answer = ann.post(f"/v1/experiences/{theirs.id}/{action}", json={"reason": "mine now"})
            assert said(answer) == (404, "not_found")
        assert said(ann.patch(f"/v1/experiences/{theirs.id}", json={"reason": "x", "goal": "y"})) == (404, "not_found")
        assert bob.get(f"/v1/experiences/{theirs.id}").json()["version"] == theirs.version
        assert bob.post("/v1/experiences", json=NEW).json()["tenant"] == "b"
        assert ann.get("/v1/stats").json()["experiences"] == 1
    with serving.client(secrets["eve"]) as eve:
        assert eve.get(f"/v1/experiences/{mine.id}").status_code == 200
        assert said(eve.post("/v1/experiences", json=NEW)) == (403, "forbidden")
        assert said(eve.post(f"/v1/experiences/{mine.id}/undo")) == (403, "forbidden")


def test_many_clients_of_two_tenants_at_once(serve: Serve) -> None:
    serving = serve(write=True, tokens=TWO)

    def use(name: str, number: int) -> set[str]:
        """Write, read and search as one client; the tenants of all that came back."""
        with serving.client((serving.folder / f"{name}.secret").read_text()) as client:
            said = {**NEW, "goal": "fill form", "content": {**SKILL, "procedure": [f"fill form {number}"]}}
            kept = client.post("/v1/experiences", json=said).json()
            place = f"/v1/experiences/{kept['id']}"
            assert client.patch(place, json={"reason": "x", "core": f"Form {number}."}).json()["version"] == 2
            ids = [hit["id"] for hit in client.post("/v1/search", json={"text": "fill form", "k": 100}).json()["hits"]]
            assert kept["id"] in ids
            return {client.get(f"/v1/experiences/{id}").json()["tenant"] for id in ids}

    with ThreadPoolExecutor(8) as pool:
        seen = {name: [pool.submit(use, name, number) for number in range(10)] for name in ("ann", "bob")}
        tenants = {name: set().union(*(each.result() for each in futures)) for name, futures in seen.items()}
    assert tenants == {"ann": {"a"}, "bob": {"b"}}


def test_quarantine_is_for_those_who_may_write_and_not_lifted_by_its_author(serve: Serve) -> None:
    serving = serve(write=True, tokens={**TWO, "amy": ("a", True)})
    secrets = {name: (serving.folder / f"{name}.secret").read_text() for name in (*TWO, "amy")}
    with serving.client(secrets["ann"]) as ann, serving.client(secrets["amy"]) as amy:
        item = ann.post("/v1/experiences", json=NEW).json()
        why = Change(by="admission", reason="not trusted enough")
        serving.service.store("a").move(item["id"], Status.QUARANTINED, why)
        place = f"/v1/experiences/{item['id']}"
        with serving.client(secrets["eve"]) as eve:
            answer = eve.get(place)
            assert said(answer) == (403, "forbidden")
            assert "press save" not in answer.text
            assert said(eve.get(f"{place}/sources")) == (403, "forbidden")
            everything = {"text": "keep the form", "statuses": []}
            assert eve.post("/v1/search", json=everything).json()["hits"] == []
            asked = {"text": "keep the form", "statuses": ["quarantined"]}
            assert said(eve.post("/v1/search", json=asked)) == (403, "forbidden")
        assert ann.post("/v1/search", json=asked).json()["hits"][0]["id"] == item["id"]
        assert said(ann.post(f"{place}/approve", json={"reason": "trust me"})) == (403, "forbidden")
        assert said(ann.post(f"{place}/undo")) == (403, "forbidden")
        # No way round: out of quarantine into retirement, and back from there.
        assert ann.post(f"{place}/retire", json={"reason": "old"}).json()["status"] == "retired"
        with serving.client(secrets["eve"]) as eve:
            assert said(eve.get(place)) == (403, "forbidden"), "what was retired unread is not out of quarantine"
            assert eve.post("/v1/search", json=everything).json()["hits"] == []
        assert said(ann.post(f"{place}/approve", json={"reason": "trust me"})) == (403, "forbidden")
        assert said(ann.post(f"{place}/undo")) == (403, "forbidden")
        assert ann.get(place).json()["status"] == "retired"
        assert amy.post(f"{place}/approve", json={"reason": "read it"}).json()["status"] == "active"
        assert ann.post(f"{place}/retire", json={"reason": "old"}).json()["status"] == "retired"
        assert ann.post(f"{place}/undo").json()["status"] == "active", "somebody else has let it pass"
        with serving.client(secrets["eve"]) as eve:
            assert eve.get(place).status_code == 200


def test_of_edits_of_one_version_one_is_kept(serve: Serve) -> None:
    serving = serve(write=True)
    items = [serving.learn("default", f"fill form {number}") for number in range(5)]

    def edit(item: Experience, goal: str) -> int:
        with serving.client() as client:
            sent = {"reason": "x", "version": item.version, "goal": goal}
            return client.patch(f"/v1/experiences/{item.id}", json=sent).status_code

    with ThreadPoolExecutor(4) as pool:
        for item in items:
            answers = sorted(pool.map(lambda n, item=item: edit(item, f"goal {n}"), range(4)))
            assert answers == [200, 409, 409, 409]


def test_texts_of_sources_that_are_not_trusted_are_for_those_who_may_write(serve: Serve) -> None:
    serving = serve(write=True, tokens=TWO)
    why = Change(by="review:ann", reason="read it")
    outside = serving.learn("a", "log in and obey", origin="import:others")
    serving.service.store("a").move(outside.id, Status.ACTIVE, why)
    own = serving.learn("a", "book a flight")
    seen = {}
    for name in ("ann", "eve"):
        with serving.client((serving.folder / f"{name}.secret").read_text()) as client:
            answers = [client.get(f"/v1/experiences/{item.id}/sources") for item in (outside, own)]
            seen[name] = [
                (step["withheld"], "obey" in answer.text) for answer in answers for step in answer.json()["steps"]
            ]
    assert seen == {"ann": [(False, True), (False, False)], "eve": [(True, False), (False, False)]}


def test_tokens_are_taken_back_at_once_and_a_broken_file_lets_nobody_in(serve: Serve) -> None:
    serving = serve(tokens={"ann": ("a", False), "bob": ("b", False)})
    file = serving.folder / "tokens.toml"
    with serving.client((serving.folder / "ann.secret").read_text()) as ann:
        assert ann.get("/v1/stats").status_code == 200
        revoke_token(file, "ann")
        assert ann.get("/v1/stats").status_code == 401
    with serving.client((serving.folder / "bob.secret").read_text()) as bob:
        assert bob.get("/v1/stats").status_code == 200
        file.write_text("[[token")
        assert bob.get("/v1/stats").status_code == 401


def test_the_tokens_file_holds_digests_and_is_checked(tmp_path: Any) -> None:
    file = tmp_path / "tokens.toml"
    secret = make_token(file, "ann", tenant="a", write=True)
    assert secret not in file.read_text()
    assert Tokens(file).caller(secret) == Caller("ann", "a", write=True)
    assert Tokens(file).caller("tut_\udcff") is None
    for name, tenant in (("ann", "a"), ("b b", "a"), ("x", "../a"), ("x\n", "a")):
        with pytest.raises(ConfigError):
            make_token(file, name, tenant=tenant)
    for text in ("nonsense", '[[token]]\nname = "x"', "[other]\nx = 1", file.read_text() * 2):
        (tmp_path / "bad.toml").write_text(text)
        with pytest.raises(ConfigError):
            read_tokens(tmp_path / "bad.toml")
    os.chmod(file, 0o666)
    with pytest.raises(ConfigError, match="everybody may write"):
        read_tokens(file)
    revoke = tmp_path / "one.toml"
    make_token(revoke, "ann")
    revoke_token(revoke, "ann")
    with pytest.raises(ConfigError, match="holds no tokens"):
        Tokens(revoke)


def test_nothing_serves_others_without_tokens() -> None:
    local = ("127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost")
    others = ("0.0.0.0", "::", "192.168.1.2", "example.org", "localhost.example.org", "")
    assert [is_loopback(host) for host in (*local, *others)] == [True] * 5 + [False] * 6

    async def app(*_: Any) -> None:
        raise AssertionError

    for tokens, anyone, loopback in ((None, Caller("me", "a"), False), (None, None, True)):
        with pytest.raises(ValueError, match="tokens"):
            Guard(app, tokens=tokens, anyone=anyone, loopback=loopback)


def test_every_request_gets_an_answer_as_described(serve: Serve, full_counts: bool) -> None:
    """Generated from the OpenAPI document: requests that fit it, that do not, and chains of them."""
    serving = serve(write=True)
    serving.learn("default", "log in with a password")
    options = ["--max-examples", "100" if full_counts else "4", "--workers", "1", "--checks", "all"]
    # What a pattern may be and what stands in the way is no matter of schemas; `forget` deletes by another name.
    options += ["--exclude-checks", "positive_data_acceptance,ensure_resource_availability,use_after_free"]
    options += [] if full_counts else ["--phases", "fuzzing,stateful", "--seed", "7"]
    command = [str(Path(sys.executable).parent / "schemathesis"), "run", f"{serving.url}/openapi.json", *options]
    done = subprocess.run(command, cwd=serving.folder, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
    assert "passed" in done.stdout
