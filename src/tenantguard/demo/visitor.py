"""Somebody who signs in and searches through an example's own interface."""

import json
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlencode

from sqlalchemy.util import await_only

from tenantguard.demo.data import Practice
from tenantguard.demo.scene import expect
from tenantguard.demo.stage import Stage

__all__ = ["visiting"]

Search = Callable[[Practice, str], set[int]]


def visiting(stage: Stage) -> AbstractContextManager[Search]:
    """Yield how a practice searches patients by name: the numbers that its first page lists."""
    return _fastapi(stage) if stage.asynchronous else _flask(stage)


@contextmanager
def _flask(stage: Stage) -> Iterator[Search]:
    app = stage.app(SECRET_KEY=secrets.token_hex(), PROPAGATE_EXCEPTIONS=True)

    def search(practice: Practice, name: str) -> set[int]:
        client = app.test_client()
        token = re.search(r'name="csrf" value="([^"]+)"', client.get("/sign-in").text)
        form = {"email": practice.email, "password": practice.password, "csrf": token and token[1]}
        answer = client.post("/sign-in", data=form)
        expect("the answer to signing in", actual=answer.status_code, equal=302)
        page = client.get("/patients/", query_string={"q": name})
        expect("the answer to a search", actual=page.status_code, equal=200)
        return {int(number) for number in re.findall(r'href="/patients/(\d+)"', page.text)}

    try:
        yield search
    finally:
        app.extensions["engine"].dispose()


@contextmanager
def _fastapi(stage: Stage) -> Iterator[Search]:
    app = stage.app(SECRET_KEY=secrets.token_hex())

    def search(practice: Practice, name: str) -> set[int]:
        login = {"email": practice.email, "password": practice.password}
        answer = await_only(_ask(app, "POST", "/sign-in", body=json.dumps(login)))
        expect("the answer to signing in", actual=answer.status, equal=204)
        cookie = answer.headers[b"set-cookie"].partition(b";")[0]
        query = urlencode({"q": name})
        page = await_only(_ask(app, "GET", "/patients", query=query, cookie=cookie))
        expect("the answer to a search", actual=page.status, equal=200)
        return {row["id"] for row in json.loads(page.body)["rows"]}

    try:
        yield search
    finally:
        await_only(app.state.engine.dispose())


class _Answer(NamedTuple):
    status: int
    headers: dict[bytes, bytes]
    body: bytes


async def _ask(
    app: Any, method: str, path: str, *, query: str = "", body: str = "", cookie: bytes = b""
) -> _Answer:
    """Send *app* one request, as its server would."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "query_string": query.encode(),
        "headers": [(b"content-type", b"application/json"), (b"cookie", cookie)],
    }
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body.encode(), "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start, *rest = sent
    content = b"".join(message.get("body", b"") for message in rest)
    return _Answer(start["status"], dict(start["headers"]), content)
