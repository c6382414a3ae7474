import secrets
from typing import Annotated, Any

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from fastapi import APIRouter, Depends, HTTPException, Request
from sqlalchemy import select
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from .database import Db, Sessions, guard
from .models import Practice, User
from .schemas import Me, SignIn

PUBLIC = {"/docs", "/openapi.json", "/sign-in", "/sign-out"}

router = APIRouter(tags=["sign-in"])
hasher = PasswordHasher()
find_user = guard.identity_lookup(User, by="email")
# Verified for an unknown address, so that both answers take the same time.
_NOBODY = hasher.hash(secrets.token_hex())
_CLOSE = WebSocketClose(1008)


class SignInMiddleware:
    """Answer 401 to somebody who has not signed in; close a WebSocket."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asks = scope["type"] in ("http", "websocket") and scope["path"] not in PUBLIC
        app = self.app
        if asks and "user_id" not in scope["session"]:
            http = scope["type"] == "http"
            app = JSONResponse({"detail": "Not authenticated"}, 401) if http else _CLOSE
        await app(scope, receive, send)


async def current_user(connection: HTTPConnection, db: Db) -> User:
    user = await db.get(User, connection.session["user_id"])
    if user is None:
        raise HTTPException(403)
    return user


CurrentUser = Annotated[User, Depends(current_user)]


@router.post("/sign-in", status_code=204)
async def sign_in(form: SignIn, request: Request, sessions: Sessions) -> None:
    email = form.email.strip().lower()
    async with sessions() as db:
        user = await db.run_sync(find_user, email)
    known = user.secret if user else _NOBODY
    # Hashing takes long on purpose: neither the event loop nor a connection waits for it.
    if not await run_in_threadpool(_verified, known, form.password) or user is None:
        raise HTTPException(401, "E-mail address or password is wrong.")
    request.session.clear()
    request.session["user_id"] = user.id
    request.session["tenant_id"] = str(user.tenant)


@router.post("/sign-out", status_code=204)
async def sign_out(request: Request) -> None:
    request.session.clear()


@router.get("/me", response_model=Me)
async def me(user: CurrentUser, db: Db) -> Any:
    query = (
        select(User.name, User.email, Practice.name.label("practice"), Practice.city)
        .join(Practice)
        .where(User.id == user.id)
    )
    return (await db.execute(query)).one()


def _verified(password_hash: str, password: str) -> bool:
    try:
        return hasher.verify(password_hash, password)
    except VerificationError:
        return False
