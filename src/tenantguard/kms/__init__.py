"""Key-encryption keys that never leave a key-management service or a hardware module.

One file a service. Each wraps a fresh data key, which seals the keyset: so all store one format,
and the service sees neither a keyset nor a tenant. Nothing is loaded before it is needed.
"""

from tenantguard.kms.aws import AwsKms
from tenantguard.kms.azure import AzureManagedHsm
from tenantguard.kms.google import GoogleKms
from tenantguard.kms.pkcs11 import Pkcs11
from tenantguard.kms.vault import VaultTransit

__all__ = ["AwsKms", "AzureManagedHsm", "GoogleKms", "Pkcs11", "VaultTransit"]
