"""Cases: WebSockets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from practice import A, B
from starlette.websockets import WebSocketDisconnect
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from conformance.bench import HEADER, guard_error, names, refusals
from conformance.forms import ASGI, NO_TENANT, case, waiting
from tenantguard import CrossTenantError, tenant_context

if TYPE_CHECKING:
    from conformance.forms import Outcome
from starlette.websockets import WebSocket

TOPIC = "WebSockets"
SOCKETS = waiting(ASGI)
UNNAMED = {
    error: tuple(form for form in forms if form in SOCKETS) for error, forms in NO_TENANT.items()
}


def _answer_with_patients(bench: Any) -> None:
    """Answer each message with the patients, until the client leaves; "fail" is an error."""

    async def talk(socket: WebSocket) -> None:
        bench.reached.append("view")
        await socket.accept()
        try:
            while await socket.receive_text() != "fail":
                await socket.send_text(json.dumps(await bench.names()))
        except WebSocketDisconnect:
            return
        raise RuntimeError("broken")

    bench.socket("/live", talk)


async def _reads(bench: Any, socket: Any, tenant: Any) -> Outcome:
    return bench.judge_shown(json.loads(await socket.ask("?")), tenant)  # type: ignore[no-any-return]


async def _open_and_ask(bench: Any, text: str) -> None:
    async with bench.connected("/live", A) as socket:
        await socket.open()
        await socket.ask(text)


@case(TOPIC, works=SOCKETS)
async def whole_connection(bench: Any) -> list[Outcome]:
    """A connection asks several times: each answer is the tenant's."""
    _answer_with_patients(bench)
    bench.view("/patients", bench.names)
    outcomes = []
    async with bench.connected("/live", A) as socket:
        assert await socket.open() == "websocket.accept"
        for _ in range(3):
            outcomes += [await _reads(bench, socket, A), await bench.reads("/patients", B)]
    return outcomes


@case(TOPIC, works=SOCKETS)
async def two_connections(bench: Any) -> list[Outcome]:
    """Connections of both tenants are open, and ask in turns."""
    _answer_with_patients(bench)
    outcomes = []
    async with bench.connected("/live", A) as first, bench.connected("/live", B) as second:
        assert [await first.open(), await second.open()] == ["websocket.accept"] * 2
        for _ in range(3):
            outcomes += [await _reads(bench, first, A), await _reads(bench, second, B)]
    return outcomes


@case(TOPIC, raises=UNNAMED)
async def socket_without_a_tenant(bench: Any) -> Outcome:
    """A connection names no tenant: it is refused before it is accepted, and no view runs."""
    _answer_with_patients(bench)
    with refusals() as log:
        async with bench.connected("/live", None) as socket:
            assert await socket.open() == "websocket.close"
    assert bench.reached == []
    [error] = log.errors
    return guard_error(error)


@case(TOPIC, works=SOCKETS)
async def socket_that_fails(bench: Any) -> Outcome:
    """A connection ends by an error after it was accepted: the next one is clean."""
    _answer_with_patients(bench)
    with pytest.raises(RuntimeError, match="broken"):
        await _open_and_ask(bench, "fail")
    async with bench.connected("/live", B) as socket:
        assert await socket.open() == "websocket.accept"
        return await _reads(bench, socket, B)


@case(TOPIC, raises={CrossTenantError: SOCKETS})
async def socket_that_crosses(bench: Any) -> Outcome:
    """A connection touches another tenant's after it was accepted: the error ends it."""

    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        await socket.receive_text()
        async with bench.session() as session:
            await bench.within(session, names)
            with tenant_context(B):
                await bench.within(session, names)

    bench.socket("/live", talk)
    with pytest.raises(CrossTenantError) as crossed:
        await _open_and_ask(bench, "?")
    return guard_error(crossed.value)


@case(TOPIC, works=SOCKETS)
async def socket_of_a_server(bench: Any) -> list[Outcome]:
    """Under uvicorn, both tenants are connected; one that names no tenant gets 403."""
    _answer_with_patients(bench)
    async with bench.served() as port:
        address = f"ws://127.0.0.1:{port}/live"
        with pytest.raises(InvalidStatus) as refused:
            await connect(address)
        assert refused.value.response.status_code == 403
        async with (
            connect(address, additional_headers={HEADER: str(A)}) as first,
            connect(address, additional_headers={HEADER: str(B)}) as second,
        ):
            outcomes = []
            for socket, tenant in ((first, A), (second, B)) * 2:
                await socket.send("?")
                outcomes.append(bench.judge_shown(json.loads(await socket.recv()), tenant))
    return outcomes
