"""An application that goes on writing while a command works on the same rows."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from threading import Event
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LEAST = 50
"""How many writes there are at least, however short the block is."""


@contextmanager
def written_beside(write: Callable[[str], Any]) -> Iterator[dict[Any, str]]:
    """Yield what *write* has committed last, by what it returned: the row's key.

    *write* is called in another thread, with another text each time, until the block ends. What it
    raises is raised at the end.
    """
    written: dict[Any, str] = {}
    stop = Event()

    def go_on() -> None:
        for number in count():
            if stop.is_set() and number >= LEAST:
                return
            name = f"writer {number}"
            written[write(name)] = name

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(go_on)
        try:
            yield written
        finally:
            stop.set()
        running.result()
