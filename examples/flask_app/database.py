"""One engine for the app, one session for each request."""

import os
from typing import Any, TypeVar

from flask import Flask, abort, current_app, g, request
from sqlalchemy import Select, create_engine, func, select
from sqlalchemy.orm import Session, sessionmaker

from tenantguard import KeyFile, TenantGuard

from .models import Base, User

Model = TypeVar("Model", bound=Base)

guard = TenantGuard(
    Base.metadata,
    tenants="practices",
    shared={"materials": "price list for all practices"},
    keys=KeyFile(
        os.environ.get("TENANTGUARD_KEY_FILE", "tenantguard-key.json"),
        environment=os.environ.get("APP_ENV", "development"),
    ),
)
find_user = guard.identity_lookup(User, by="email")


def init_app(app: Flask) -> None:
    engine = create_engine(app.config["DATABASE_URL"])
    guard.protect(engine)
    app.extensions["sessions"] = sessionmaker(engine)
    app.extensions["engine"] = engine
    app.teardown_appcontext(_close)


def db() -> Session:
    if "db" not in g:
        g.db = current_app.extensions["sessions"]()
    session: Session = g.db
    return session


def get_or_404(model: type[Model], id_: int) -> Model:
    return db().get(model, id_) or abort(404)


def page_of(query: Select[Any]) -> dict[str, Any]:
    """Return the rows of the page that the request asks for, and what the pager shows."""
    size: int = current_app.config["PAGE_SIZE"]
    total = db().scalar(select(func.count()).select_from(query.order_by(None).subquery())) or 0
    pages = max(1, -(-total // size))
    number = min(max(1, request.args.get("page", 1, int)), pages)
    rows = db().scalars(query.limit(size).offset((number - 1) * size)).all()
    return {"rows": rows, "total": total, "page": number, "pages": pages}


def _close(_error: BaseException | None) -> None:
    session: Session | None = g.pop("db", None)
    if session is not None:
        session.close()
