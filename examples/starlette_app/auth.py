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

from .database import Db, guard
from .models import Practice, User
from .schemas import Me, SignIn

PUBLIC = {"/docs", "/openapi.json", "/sign-in", "/sign-out"}

router = APIRouter(tags=["sign-in"])
hasher = PasswordHasher()
find_user = guard.identity_lookup(User, by="email")
# Verified for an unknown address, so that both answers take the same time.
_NOBODY = hasher.hash(secrets.token_hex())


class SignInMiddleware:
    """Answer 401 to requests and WebSockets of somebody who has not signed in."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asks = scope["type"] in ("http", "websocket") and scope["path"] not in PUBLIC
        if asks and "user_id" not in scope["session"]:
            answer = JSONResponse({"detail": "Not authenticated"}, 401)
            await answer(scope, receive, send)
        else:
            await self.app(scope, receive, send)


async def current_user(connection: HTTPConnection, db: Db) -> User:
    user = await db.get(User, connection.session["user_id"])
    if user is None:
        raise HTTPException(403)
    return user


CurrentUser = Annotated[User, Depends(current_user)]


@router.post("/sign-in", status_code=204)
async def sign_in(form: SignIn, request: Request, db: Db) -> None:
    email = form.email.strip().lower()
    user = await db.run_sync(find_user, email)
    known = user.secret if user else _NOBODY
    # Hashing takes long on purpose: on the event loop, everybody would wait for it.
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
