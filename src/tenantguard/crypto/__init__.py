"""Sealing values with a tenant's keys: the stored format, keysets, and the key that wraps them.

Only `keysets`, `rotation` and `strength` import Tink, when a key is first needed.
"""
