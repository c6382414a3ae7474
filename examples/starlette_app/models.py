import uuid
from datetime import date
from decimal import Decimal

from sqlalchemy import ForeignKey, Numeric, String, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from tenantguard import Exact, encrypted_date, encrypted_str


class Base(DeclarativeBase):
    pass


class Practice(Base):
    __tablename__ = "practices"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    name: Mapped[str] = mapped_column(String(120))
    city: Mapped[str] = mapped_column(String(80))


class OfPractice:
    """What belongs to one practice."""

    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"), index=True)


class User(OfPractice, Base):
    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(200), unique=True)
    name: Mapped[str] = mapped_column(String(120))
    password_hash: Mapped[str] = mapped_column(String(200))


class Patient(OfPractice, Base):
    __tablename__ = "patients"

    id: Mapped[int] = mapped_column(primary_key=True)
    first_name: Mapped[str] = encrypted_str(search=Exact(normalize="nfc-casefold"))
    last_name: Mapped[str] = encrypted_str(search=Exact(normalize="nfc-casefold"))
    born: Mapped[date] = encrypted_date()
    insurance: Mapped[str] = mapped_column(String(80), default="")
    notes: Mapped[str] = encrypted_str(default="")
    orders: Mapped[list["Order"]] = relationship(
        back_populates="patient", cascade="all, delete-orphan", order_by="Order.ordered_on.desc()"
    )


class Order(OfPractice, Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    patient_id: Mapped[int] = mapped_column(ForeignKey("patients.id"), index=True)
    title: Mapped[str] = encrypted_str()
    status: Mapped[str] = mapped_column(String(20), default="new")
    ordered_on: Mapped[date] = mapped_column(server_default=func.current_date())
    due_on: Mapped[date]
    patient: Mapped[Patient] = relationship(back_populates="orders")
    items: Mapped[list["OrderItem"]] = relationship(
        back_populates="order", cascade="all, delete-orphan", order_by="OrderItem.id"
    )

    @property
    def total(self) -> Decimal:
        return sum((item.quantity * item.material.price for item in self.items), Decimal(0))


class OrderItem(OfPractice, Base):
    __tablename__ = "order_items"

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), index=True)
    material_id: Mapped[int] = mapped_column(ForeignKey("materials.id"))
    quantity: Mapped[int] = mapped_column(default=1)
    tooth: Mapped[str] = mapped_column(String(20), default="")
    order: Mapped[Order] = relationship(back_populates="items")
    material: Mapped["Material"] = relationship()


class Material(Base):
    """One line of the price list, which all practices share."""

    __tablename__ = "materials"

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[str] = mapped_column(String(20), unique=True)
    name: Mapped[str] = mapped_column(String(120))
    price: Mapped[Decimal] = mapped_column(Numeric(8, 2))
