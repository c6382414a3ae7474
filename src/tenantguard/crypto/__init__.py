"""Sealing values with a tenant's keys: the stored format, keysets, and the key that wraps them.

Only `keysets` and `rotation` import Tink, and they are imported when a key is first needed.
"""
