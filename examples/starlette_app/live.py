"""The state of orders over a WebSocket, for the screen in the practice."""

from contextlib import suppress
from typing import Any

from fastapi import APIRouter, WebSocket, WebSocketDisconnect, WebSocketException
from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from .database import Sessions
from .models import Order, User
from .schemas import OrderOut, Question

router = APIRouter()

_LIMIT = 100


@router.websocket("/orders/live")
async def live(socket: WebSocket, sessions: Sessions) -> None:
    """Answer `{"order": 7}` with that order, and `{"status": "new"}` with all that are new."""
    async with sessions() as db:
        if await db.get(User, socket.session["user_id"]) is None:
            raise WebSocketException(1008)
    await socket.accept()
    with suppress(WebSocketDisconnect):
        while True:
            text = await socket.receive_text()
            # A session for each question: while the client reads or thinks, no connection is held.
            async with sessions() as db:
                answer = await _answer(db, text)
            await socket.send_json(answer)


async def _answer(db: AsyncSession, text: str) -> dict[str, Any]:
    try:
        question = Question.model_validate_json(text)
    except ValidationError:
        return {"detail": "Ask for an order by its number, or for the orders with a status."}
    if question.order is not None:
        order = await db.get(Order, question.order)
        return _shown(order) if order else {"detail": "Not Found"}
    query = (
        select(Order).where(Order.status == question.status).order_by(Order.due_on).limit(_LIMIT)
    )
    return {"orders": [_shown(order) for order in await db.scalars(query)]}


def _shown(order: Order) -> dict[str, Any]:
    return OrderOut.model_validate(order).model_dump(mode="json")
