"""A dental laboratory's portal: its practices look after their patients and send orders."""

import os
from collections.abc import Mapping
from typing import Any

from flask import Flask, render_template

from tenantguard.integrations.flask import FlaskGuard
from tenantguard.resolvers import session_key

from . import auth, database, orders, patients
from .models import STATUSES


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    app = Flask(__name__)
    app.config.from_mapping(
        DATABASE_URL=os.environ.get("DATABASE_URL", "postgresql+psycopg:///dental"),
        SECRET_KEY=os.environ.get("SECRET_KEY"),
        SESSION_COOKIE_SAMESITE="Lax",
        PAGE_SIZE=20,
    )
    app.config.update(config or {})
    database.init_app(app)
    app.before_request(auth.require_sign_in)
    FlaskGuard(app, database.guard, resolver=session_key("practice_id"), public=auth.PUBLIC)
    app.before_request(auth.load_user)
    app.before_request(auth.check_csrf)
    app.register_blueprint(auth.bp)
    app.register_blueprint(patients.bp)
    app.register_blueprint(orders.bp)
    app.add_url_rule("/", "dashboard", orders.dashboard)
    app.context_processor(lambda: {"csrf_token": auth.csrf_token, "statuses": STATUSES})
    for code, text in _ERRORS.items():
        app.register_error_handler(code, _error_page(code, text))
    return app


_ERRORS = {
    400: "The form was too old or not complete. Please go back and send it again.",
    403: "You are not signed in, or this is not for you.",
    404: "There is nothing here under this address.",
    500: "Something went wrong on our side. We have been told.",
}


def _error_page(code: int, text: str) -> Any:
    return lambda _error: (render_template("error.html", code=code, text=text), code)
