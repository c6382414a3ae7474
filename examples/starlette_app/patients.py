import csv
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from io import StringIO
from typing import Annotated, Any, cast

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import selectinload
from starlette.types import Receive, Scope, Send

from .auth import CurrentUser
from .database import Db, Sessions, get_or_404, page_of
from .models import Patient
from .schemas import Id, Page, PatientDetail, PatientIn, PatientOut

router = APIRouter(prefix="/patients", tags=["patients"])

_LOG = logging.getLogger(__name__)
_AT_ONCE = 500
_COLUMNS = ("id", "last_name", "first_name", "born", "insurance")


@router.get("", response_model=Page[PatientOut])
async def index(
    db: Db,
    q: str = "",
    page: Annotated[int, Query(ge=1)] = 1,
) -> dict[str, Any]:
    wanted = q.strip()
    query = select(Patient).order_by(Patient.id.desc())
    if wanted:
        query = query.where(or_(Patient.last_name == wanted, Patient.first_name == wanted))
    return await page_of(db, query, page)


@router.get("/export.csv", response_class=StreamingResponse)
async def export(sessions: Sessions) -> StreamingResponse:
    """Send all patients, row by row as the database gives them."""
    return _ClosingResponse(_lines(sessions), media_type="text/csv")


class _ClosingResponse(StreamingResponse):
    """Ends its generator when the client goes away.

    Starlette leaves that to the garbage collector, and the connection would wait for it.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(cast("AsyncGenerator[str]", self.body_iterator)):
            await super().__call__(scope, receive, send)


async def _lines(sessions: async_sessionmaker[AsyncSession]) -> AsyncGenerator[str]:
    yield _line(_COLUMNS)
    query = select(Patient).order_by(Patient.id).execution_options(yield_per=_AT_ONCE)
    # A session of its own: the request's may be closed before the body is sent.
    async with sessions() as db:
        patients = await db.stream_scalars(query)
        try:
            async for patient in patients:
                yield _line(getattr(patient, name) for name in _COLUMNS)
        finally:
            await patients.close()


def _line(values: Any) -> str:
    line = StringIO()
    csv.writer(line).writerow(values)
    return line.getvalue()


@router.get("/{id_}", response_model=PatientDetail)
async def detail(id_: Id, db: Db) -> Patient:
    return await get_or_404(db, Patient, id_, selectinload(Patient.orders))


@router.post("", response_model=PatientOut, status_code=201)
async def create(form: PatientIn, db: Db, user: CurrentUser) -> Patient:
    patient = Patient(
        **form.model_dump(),
    )
    db.add(patient)
    await db.commit()
    _LOG.info("User %d created patient %d", user.id, patient.id)
    return patient


@router.put("/{id_}", response_model=PatientOut)
async def change(id_: Id, form: PatientIn, db: Db) -> Patient:
    patient = await get_or_404(db, Patient, id_)
    for name, value in form:
        setattr(patient, name, value)
    await db.commit()
    return patient


@router.delete("/{id_}", status_code=204)
async def delete(id_: Id, db: Db, user: CurrentUser) -> None:
    await db.delete(await get_or_404(db, Patient, id_))
    await db.commit()
    _LOG.info("User %d deleted patient %d", user.id, id_)
