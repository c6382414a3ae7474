from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, HTTPException, Query
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import joinedload, selectinload

from .auth import CurrentUser
from .database import Db, Sessions, get_or_404, page_of
from .models import Material, Order, OrderItem, Patient
from .schemas import (
    Id,
    MaterialOut,
    OrderDetail,
    OrderIn,
    OrderOut,
    Page,
    Status,
    StatusIn,
)

router = APIRouter(tags=["orders"])


@router.get("/orders", response_model=Page[OrderOut])
async def index(
    db: Db,
    status: Status | None = None,
    page: Annotated[int, Query(ge=1)] = 1,
) -> dict[str, Any]:
    query = select(Order).order_by(Order.due_on.desc(), Order.id)
    if status is not None:
        query = query.where(Order.status == status)
    return await page_of(db, query, page)


@router.get("/orders/{id_}", response_model=OrderDetail)
async def detail(id_: Id, db: Db) -> Order:
    return await get_or_404(
        db,
        Order,
        id_,
        joinedload(Order.patient),
        selectinload(Order.items).joinedload(OrderItem.material),
    )


@router.post("/orders", response_model=OrderOut, status_code=201)
async def create(
    form: OrderIn, db: Db, user: CurrentUser, later: BackgroundTasks, sessions: Sessions
) -> Order:
    patient = await get_or_404(db, Patient, form.patient_id)
    wanted = {item.material_id for item in form.items}
    known = await db.scalars(select(Material.id).where(Material.id.in_(wanted)))
    if wanted != set(known):
        raise HTTPException(422, "The price list has no such material.")
    order = Order(
        patient=patient,
        title=form.title,
        due_on=form.due_on,
    )
    for item in form.items:
        line = OrderItem(
            **item.model_dump(),
        )
        order.items.append(line)
    db.add(order)
    await db.commit()
    later.add_task(_acknowledge, sessions, order.id, user.name)
    return order


async def _acknowledge(sessions: async_sessionmaker[AsyncSession], id_: int, by: str) -> None:
    """Note with the patient what was ordered, after the answer was sent."""
    async with sessions.begin() as db:
        order = await db.get_one(Order, id_)
        patient = await db.get_one(Patient, order.patient_id, with_for_update=True)
        note = f"Order {id_} ({order.title}) by {by}, due on {order.due_on}."
        patient.notes = f"{patient.notes}\n{note}".strip()


@router.put("/orders/{id_}/status", response_model=OrderOut)
async def set_status(id_: Id, form: StatusIn, db: Db) -> Order:
    order = await get_or_404(db, Order, id_)
    order.status = form.status
    await db.commit()
    return order


@router.get("/prices", response_model=list[MaterialOut])
async def prices(db: Db) -> Sequence[Material]:
    return (await db.scalars(select(Material).order_by(Material.number))).all()
