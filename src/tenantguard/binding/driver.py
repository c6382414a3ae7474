"""What the engine needs to know of a driver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tenantguard.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Driver", "need_hooks"]


def _switch(connection: Any, on: bool) -> None:  # noqa: FBT001
    connection.autocommit = on


@dataclass(frozen=True, slots=True)
class Driver:
    """How to get connections that bind the tenant.

    Attributes:
        connection_class: The class of the driver's own connections. Their `tenantguard` holds the
            `ConnectionState`; they have `in_transaction()` and `server_process()`.
        connect: Returns a DBAPI connection, given the dialect and the arguments for the driver.
        switch: Switches a DBAPI connection's autocommit, without asking the server.
    """

    connection_class: type[Any]
    connect: Callable[[Any, Iterable[Any], dict[str, Any]], Any]
    switch: Callable[[Any, bool], None] = _switch

    @classmethod
    def by_argument(cls, connection_class: type[Any], name: str, value: Any) -> Driver:
        """Return a driver that is told by the argument *name* which connections to make."""

        def connect(dialect: Any, args: Iterable[Any], params: dict[str, Any]) -> Any:
            if name in params:
                raise ConfigurationError(
                    f"A protected engine makes its connections itself; remove {name} from "
                    "connect_args."
                )
            return dialect.connect(*args, **params, **{name: value})

        return cls(connection_class, connect)


def need_hooks(supported: str, owner: type[Any], names: Iterable[str]) -> None:
    """Raise `ConfigurationError` unless *owner* has the methods that binding replaces or calls."""
    for name in names:
        if not callable(getattr(owner, name, None)):
            raise ConfigurationError(
                f"This version of the driver has no hook {name}; tenantguard supports {supported}."
            )
