"""What importing the providers loads."""

from __future__ import annotations

import subprocess
import sys


def test_a_provider_that_is_made_loads_no_service() -> None:
    """Packages of services come with the first key; `import tenantguard` has no providers."""
    script = (
        "import sys, tenantguard; assert 'tenantguard.kms' not in sys.modules\n"
        "from tenantguard.kms import AwsKms, Pkcs11, VaultTransit\n"
        "AwsKms('0' * 8 + '-0000' * 3 + '-' + '0' * 12, environment='test')\n"
        "VaultTransit('https://vault', 'key', environment='test', token=str)\n"
        "Pkcs11('lib.so', 'token', 'key', environment='test', pin=str)\n"
        "print([n for n in ('boto3', 'botocore', 'urllib3', 'pkcs11', 'tink') if n in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
