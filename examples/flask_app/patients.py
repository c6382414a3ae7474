from datetime import date

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import or_, select

from .database import db, get_or_404, page_of
from .models import Patient

bp = Blueprint("patients", __name__, url_prefix="/patients")


@bp.get("/")
def index() -> ResponseReturnValue:
    wanted = request.args.get("q", "").strip()
    query = select(Patient).order_by(Patient.id.desc())
    if wanted:
        query = query.where(or_(Patient.last_name == wanted, Patient.first_name == wanted))
    return render_template("patients.html", q=wanted, **page_of(query))


@bp.get("/<int:id_>")
def detail(id_: int) -> ResponseReturnValue:
    return render_template("patient.html", patient=get_or_404(Patient, id_))


@bp.route("/new", methods=["GET", "POST"])
def new() -> ResponseReturnValue:
    return _edit(Patient(), "New patient")


@bp.route("/<int:id_>/edit", methods=["GET", "POST"])
def edit(id_: int) -> ResponseReturnValue:
    patient = get_or_404(Patient, id_)
    return _edit(patient, f"Edit {patient.full_name}")


@bp.post("/<int:id_>/delete")
def delete(id_: int) -> ResponseReturnValue:
    patient = get_or_404(Patient, id_)
    db().delete(patient)
    db().commit()
    flash(f"{patient.full_name} was deleted.")
    return redirect(url_for("patients.index"))


def _edit(patient: Patient, title: str) -> ResponseReturnValue:
    if request.method == "POST":
        try:
            _fill(patient)
        except ValueError as error:
            flash(str(error), "error")
        else:
            db().add(patient)
            db().commit()
            flash(f"{patient.full_name} was saved.")
            return redirect(url_for("patients.detail", id_=patient.id))
    return render_template("patient_form.html", patient=patient, title=title)


def _fill(patient: Patient) -> None:
    form = {name: value.strip() for name, value in request.form.items()}
    if not form.get("first_name") or not form.get("last_name"):
        raise ValueError("A patient needs a first and a last name.")
    try:
        born = date.fromisoformat(form.get("born", ""))
    except ValueError:
        raise ValueError("The date of birth is missing or not a date.") from None
    patient.first_name, patient.last_name = form["first_name"][:80], form["last_name"][:80]
    patient.born = born
    patient.insurance, patient.notes = form.get("insurance", "")[:80], form.get("notes", "")
