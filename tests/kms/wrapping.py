"""What the tests of every key service seal, how they see it refused, and a process of their own."""

from __future__ import annotations

import os
import traceback
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tenantguard import KeyUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenantguard.crypto.keyfile import KeyProvider

KEYSET, BOUND = b"a keyset, in the clear", b"production, tenant 4711, data"


def refusal_by(
    keys: KeyProvider, because: str, sealed: bytes | None = None, *, secrets: tuple[str, ...]
) -> KeyUnavailableError:
    """Return the refusal to seal, or to open *sealed*; it shows none of *secrets*."""
    with pytest.raises(KeyUnavailableError, match=because) as refusal:
        keys.kek.encrypt(KEYSET, BOUND) if sealed is None else keys.kek.decrypt(sealed, BOUND)
    shown = "".join(traceback.format_exception(refusal.value)) + repr((keys, keys.kek))
    for secret in (*secrets, "4711", "in the clear"):
        assert secret not in shown
    assert refusal.value.__context__ is None
    return refusal.value


def in_child(work: Callable[[], object]) -> int:
    """Run *work* in a forked process; return its exit code, 0 if *work* is right."""
    with warnings.catch_warnings():
        # Python warns of threads; that they are not in the child is what is tested.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        with suppress(BaseException):
            os._exit(0 if work() else 1)
        os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
