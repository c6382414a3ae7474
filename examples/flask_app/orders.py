from datetime import date, timedelta

from flask import Blueprint, abort, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import func, select
from sqlalchemy.orm import joinedload

from .database import db, get_or_404, page_of
from .models import STATUSES, Material, Order, OrderItem, Patient

bp = Blueprint("orders", __name__, url_prefix="/orders")


def dashboard() -> ResponseReturnValue:
    counted = db().execute(select(Order.status, func.count()).group_by(Order.status))
    by_status = {row[0]: row[1] for row in counted}
    due = (
        select(Order)
        .options(joinedload(Order.patient))
        .where(Order.status != "delivered")
        .order_by(Order.due_on, Order.id)
        .limit(8)
    )
    return render_template(
        "dashboard.html",
        patients=db().scalar(select(func.count(Patient.id))),
        by_status=by_status,
        due=db().scalars(due).all(),
        today=date.today(),  # noqa: DTZ011  (the practice's calendar)
    )


@bp.get("/")
def index() -> ResponseReturnValue:
    query = select(Order).options(joinedload(Order.patient)).order_by(Order.due_on.desc(), Order.id)
    status = request.args.get("status", "")
    if status in STATUSES:
        query = query.where(Order.status == status)
    return render_template("orders.html", status=status, **page_of(query))


@bp.get("/<int:id_>")
def detail(id_: int) -> ResponseReturnValue:
    return render_template("order.html", order=get_or_404(Order, id_))


@bp.route("/new/<int:patient_id>", methods=["GET", "POST"])
def new(patient_id: int) -> ResponseReturnValue:
    patient = get_or_404(Patient, patient_id)
    if request.method == "POST":
        order = Order(
            patient=patient,
            title=request.form.get("title", "").strip()[:120] or "Order",
            due_on=_date(request.form.get("due_on", "")),
            items=[_item()],
        )
        db().add(order)
        db().commit()
        flash(f"Order {order.id} was sent to the laboratory.")
        return redirect(url_for("orders.detail", id_=order.id))
    materials = db().scalars(select(Material).order_by(Material.number)).all()
    return render_template(
        "order_form.html", patient=patient, materials=materials, due=_date("") + timedelta(days=10)
    )


@bp.post("/<int:id_>/status")
def set_status(id_: int) -> ResponseReturnValue:
    order = get_or_404(Order, id_)
    status = request.form.get("status", "")
    if status not in STATUSES:
        abort(400)
    order.status = status
    db().commit()
    flash(f"Order {order.id} is now: {STATUSES[status]}.")
    return redirect(url_for("orders.detail", id_=id_))


@bp.get("/prices")
def prices() -> ResponseReturnValue:
    materials = db().scalars(select(Material).order_by(Material.number)).all()
    return render_template("prices.html", materials=materials)


def _item() -> OrderItem:
    material = get_or_404(Material, request.form.get("material_id", 0, int))
    quantity = min(max(1, request.form.get("quantity", 1, int)), 32)
    return OrderItem(material=material, quantity=quantity, tooth=request.form.get("tooth", "")[:20])


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return date.today()  # noqa: DTZ011  (the practice's calendar)
