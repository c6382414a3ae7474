"""Objects of a session whose compounds follow: what is flushed has all parts, or none.

Of a row whose parts change in part only, the others are read and locked first: two transactions
that change one part each would else leave a compound that fits neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Table, event, inspect
from sqlalchemy.orm import Mapper, object_session
from sqlalchemy.orm.attributes import flag_modified

from tenantguard.columns.compound import EncryptedCompound, parts_of
from tenantguard.errors import ConfigurationError, EncryptedQueryError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Column, Connection

__all__: list[str] = []


@event.listens_for(Mapper, "mapper_configured")
def _watch(mapper: Mapper[Any], _class: type[Any]) -> None:
    compounds = [
        _Compound(mapper, each)
        for each in mapper.columns
        if isinstance(each.type, EncryptedCompound) and isinstance(each.table, Table)
    ]
    if compounds:
        follower = _Follower(compounds)
        event.listen(mapper, "before_insert", follower.inserting)
        event.listen(mapper, "before_update", follower.updating)
        event.listen(mapper, "refresh", follower.refreshed, raw=True)
        event.listen(mapper, "expire", follower.expired, raw=True)
        for part in {part for each in compounds for part in each.parts}:
            event.listen(getattr(mapper.class_, part), "set", follower.setting, raw=True)


class _Compound:
    """A compound of a mapped class: the attribute *own*, which follows *parts*."""

    def __init__(self, mapper: Mapper[Any], compound: Column[Any]) -> None:
        self.name = cast("EncryptedCompound", compound.type).field.name
        self.table = compound.table
        self.own = mapper.get_property_by_column(compound).key
        self.parts = [_attribute(mapper, compound, part) for part in parts_of(compound)]

    def check(self, row: Any) -> None:
        """Refuse another value than the parts'."""
        parts = tuple(getattr(row, each) for each in self.parts)
        if getattr(row, self.own) != (None if any(part is None for part in parts) else parts):
            raise EncryptedQueryError(
                f"Column {self.name} follows the attributes {', '.join(self.parts)}, and was "
                "given another value. Set those, and leave this one to the library."
            )

    def is_given(self, state: Any) -> bool:
        """Return whether the compound was assigned, which `check` looks at when it is flushed."""
        return self.own in state.committed_state

    def forget(self, row: Any) -> None:
        """Let the compound be loaded when it is asked for again, and not be written as it is."""
        state = inspect(row)
        if self.own in state.dict:
            # Session.expire() takes no object that is about to be inserted.
            state._expire_attributes(state.dict, [self.own])  # noqa: SLF001


class _Follower:
    """Keeps the compounds of one mapped class."""

    def __init__(self, compounds: list[_Compound]) -> None:
        self.compounds = compounds

    def inserting(self, _mapper: Mapper[Any], _connection: Connection, row: Any) -> None:
        for compound in self.compounds:
            # None is what a dataclass begins with.
            if inspect(row).dict.get(compound.own) is not None:
                compound.check(row)
            compound.forget(row)

    def updating(self, _mapper: Mapper[Any], _connection: Connection, row: Any) -> None:
        """Let an UPDATE of some of the parts have all of them."""
        for compound in self.compounds:
            if _changes(row, compound.own):
                compound.check(row)
                compound.forget(row)
        changed = {part for each in self.compounds for part in each.parts if _changes(row, part)}
        if changed:
            self._complete(row, changed)

    def refreshed(self, state: Any, _context: object, attributes: Iterable[str] | None) -> None:
        """Forget compounds whose parts come anew, of the database or of an UPDATE by criteria."""
        self._forget_with(state, attributes)

    def expired(self, state: Any, attributes: Iterable[str] | None) -> None:
        """Forget compounds whose parts are forgotten."""
        self._forget_with(state, attributes)

    def setting(self, state: Any, _value: object, _old: object, initiator: Any) -> None:
        """Forget compounds of which a part is set, so that none of before is read or merged."""
        for compound in self.compounds:
            if initiator.key in compound.parts and not compound.is_given(state):
                compound.forget(state.obj())

    def _forget_with(self, state: Any, attributes: Iterable[str] | None) -> None:
        # None is for all attributes, the compounds among them.
        named = set(attributes or ())
        for compound in self.compounds:
            if compound.own not in named and not named.isdisjoint(compound.parts):
                compound.forget(state.obj())

    def _complete(self, row: Any, changed: set[str]) -> None:
        written = set(changed)
        # A part that comes to be written may be of another compound too.
        for _ in self.compounds:
            for compound in self.compounds:
                if written.intersection(compound.parts):
                    written.update(compound.parts)
                    compound.forget(row)
        others, session = sorted(written - changed), object_session(row)
        if others and session is not None:
            tables = {each.table for each in self.compounds if written.issuperset(each.parts)}
            # By name: an outer join, of a class with subclasses, cannot be locked as a whole.
            session.refresh(row, others, with_for_update={"of": [*tables]})
        for each in others:
            flag_modified(row, each)


def _changes(row: Any, attribute: str) -> bool:
    return bool(inspect(row).attrs[attribute].history.has_changes())


def _attribute(mapper: Mapper[Any], compound: Column[Any], part: Column[Any]) -> str:
    if not mapper.columns.contains_column(part):
        raise ConfigurationError(
            f"Column {compound} follows {part}, which class {mapper.class_.__name__} does not map. "
            "Map both of them, or neither."
        )
    return mapper.get_property_by_column(part).key
