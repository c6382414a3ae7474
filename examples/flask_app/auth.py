import secrets

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from flask import Blueprint, abort, flash, g, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue

from .database import db, find_user
from .models import Practice, User

PUBLIC = {"auth.sign_in", "auth.sign_out", "static"}

bp = Blueprint("auth", __name__)
hasher = PasswordHasher()
# Verified for an unknown address, so that both answers take the same time.
_NOBODY = hasher.hash(secrets.token_hex())


@bp.route("/sign-in", methods=["GET", "POST"])
def sign_in() -> ResponseReturnValue:
    if request.method == "POST":
        email = request.form.get("email", "").strip().lower()
        user = find_user(db(), email)
        if _verified(user.secret if user else _NOBODY) and user:
            session.clear()
            session["user_id"] = user.id
            session["practice_id"] = str(user.tenant)
            return redirect(url_for("dashboard"))
        flash("E-mail address or password is wrong.", "error")
    return render_template("sign_in.html")


@bp.post("/sign-out")
def sign_out() -> ResponseReturnValue:
    session.clear()
    return redirect(url_for("auth.sign_in"))


def require_sign_in() -> ResponseReturnValue | None:
    if request.endpoint in PUBLIC or "user_id" in session:
        return None
    return redirect(url_for("auth.sign_in"))


def load_user() -> None:
    if request.endpoint not in PUBLIC:
        g.user = db().get(User, session["user_id"]) or abort(403)
        g.practice = db().get(Practice, g.user.tenant_id)


def csrf_token() -> str:
    token: str = session.setdefault("csrf", secrets.token_urlsafe())
    return token


def check_csrf() -> None:
    if request.method == "POST":
        sent = request.form.get("csrf", "")
        if not secrets.compare_digest(sent.encode(), csrf_token().encode()):
            abort(400)


def _verified(password_hash: str) -> bool:
    try:
        return hasher.verify(password_hash, request.form.get("password", ""))
    except VerificationError:
        return False
