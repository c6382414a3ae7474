"""What the API takes and gives."""

from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Generic, TypeVar

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field

Row = TypeVar("Row")

# PostgreSQL's integer: a greater number is nobody's, and would be an error there.
_GREATEST = 2**31 - 1
Id = Annotated[int, Path(ge=1, le=_GREATEST)]


class Status(StrEnum):
    NEW = "new"
    IN_WORK = "in_work"
    TRY_IN = "try_in"
    DELIVERED = "delivered"


class Schema(BaseModel):
    model_config = ConfigDict(from_attributes=True, str_strip_whitespace=True)


class Page(Schema, Generic[Row]):
    rows: list[Row]
    total: int
    page: int
    pages: int


class SignIn(BaseModel):
    email: str
    password: str


class Me(Schema):
    name: str
    email: str
    practice: str
    city: str


class PatientIn(Schema):
    first_name: str = Field(min_length=1, max_length=80)
    last_name: str = Field(min_length=1, max_length=80)
    born: date
    insurance: str = Field("", max_length=80)
    notes: str = ""


class PatientOut(PatientIn):
    id: int


class OrderOut(Schema):
    id: int
    patient_id: int
    title: str
    status: Status
    ordered_on: date
    due_on: date


class PatientDetail(PatientOut):
    orders: list[OrderOut]


class MaterialOut(Schema):
    id: int
    number: str
    name: str
    price: Decimal


class ItemIn(Schema):
    material_id: int = Field(ge=1, le=_GREATEST)
    quantity: int = Field(1, ge=1, le=32)
    tooth: str = Field("", max_length=20)


class ItemOut(Schema):
    material: MaterialOut
    quantity: int
    tooth: str


class OrderIn(Schema):
    patient_id: int = Field(ge=1, le=_GREATEST)
    title: str = Field(min_length=1, max_length=120)
    due_on: date
    items: list[ItemIn] = Field(min_length=1, max_length=50)


class OrderDetail(OrderOut):
    patient: PatientOut
    items: list[ItemOut]
    total: Decimal


class StatusIn(Schema):
    status: Status


class Question(Schema):
    """What a client asks on the WebSocket: about one order, or about all with one status."""

    order: int | None = Field(None, ge=1, le=_GREATEST)
    status: Status = Status.IN_WORK
