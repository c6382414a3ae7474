"""Keys in AWS KMS, as moto's server plays it over HTTP."""

from __future__ import annotations

import base64
import json
import sys
from functools import cache, partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import boto3
import pytest
from moto.server import ThreadedMotoServer
from serving import closed_address, serving
from wrapping import BOUND, KEYSET, refusal_by

from tenantguard import ConfigurationError, KeyUnavailableError
from tenantguard.kms import AwsKms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from serving import Asked

SECRET = "a-secret-access-key"


@cache
def session() -> Any:
    """One for all tests: each would read the definitions of all services anew."""
    return boto3.session.Session("an-access-key", SECRET, region_name="eu-central-1")


def client_of(address: str) -> Callable[[Any], Any]:
    """What a user gives as client=."""
    return lambda config: session().client("kms", endpoint_url=address, config=config)


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def admin(moto: str) -> Any:
    """A client as the administrator of keys has it."""
    return client_of(moto)(None)


@pytest.fixture(scope="module")
def arn(admin: Any) -> str:
    return str(admin.create_key()["KeyMetadata"]["Arn"])


@pytest.fixture
def keys(moto: str, arn: str) -> AwsKms:
    return AwsKms(arn, environment="test", client=client_of(moto))


refused_by = partial(refusal_by, secrets=(SECRET, "an-access-key", "111122223333"))


# -- what KMS does ----------------------------------------------------------------------------


def test_what_was_wrapped_opens(keys: AwsKms) -> None:
    """A keyset goes through KMS and back; another process with the key's id alone opens it."""
    sealed = keys.kek.encrypt(KEYSET, BOUND)
    assert keys.kek.decrypt(sealed, BOUND) == KEYSET


def test_a_keyset_may_be_larger_than_kms_encrypts(keys: AwsKms) -> None:
    """KMS takes 4,096 bytes; it only ever gets a data key."""
    large = b"x" * 100_000
    assert keys.kek.decrypt(keys.kek.encrypt(large, BOUND), BOUND) == large


def test_other_associated_data_does_not_open(keys: AwsKms) -> None:
    """KMS refuses the data key under another digest."""
    sealed = keys.kek.encrypt(KEYSET, BOUND)
    with pytest.raises(KeyUnavailableError, match="belongs to another tenant"):
        keys.kek.decrypt(sealed, BOUND + b"x")


def test_kms_is_asked_for_this_key_alone(keys: AwsKms, admin: Any, moto: str) -> None:
    """What another key has wrapped does not open, though the client may use that key too."""
    other = AwsKms(
        admin.create_key()["KeyMetadata"]["KeyId"], environment="test", client=client_of(moto)
    )
    sealed = other.kek.encrypt(KEYSET, BOUND)
    assert other.kek.decrypt(sealed, BOUND) == KEYSET
    refused_by(keys, "AWS KMS", sealed)


def test_another_environment_does_not_open(keys: AwsKms, arn: str, moto: str) -> None:
    """The environment is part of the encryption context, by which a policy can hold it too."""
    other = AwsKms(arn, environment="staging", client=client_of(moto))
    refused_by(keys, "another tenant, purpose or environment", other.kek.encrypt(KEYSET, BOUND))


def test_a_key_that_is_not_there(moto: str) -> None:
    """The key's id belongs to another account or region, or to nobody."""
    refused_by(AwsKms(str(uuid4()), environment="test", client=client_of(moto)), "has no such key")


def test_the_answer_says_which_key_opened(arn: str) -> None:
    """Nothing is taken from another key, whatever opens it."""

    def another(request: Asked) -> tuple[int, Any]:
        status, document = wrapping(request)
        return status, {**document, "KeyId": f"arn:aws:kms:eu-central-1:111122223333:key/{uuid4()}"}

    with serving(another) as service:
        keys = AwsKms(arn, environment="test", client=client_of(service.address))
        refused_by(keys, "Another key of AWS KMS", keys.kek.encrypt(KEYSET, BOUND))


# -- what goes over the network ---------------------------------------------------------------


def wrapping(request: Asked) -> tuple[int, Any]:
    """Answer as KMS does to Encrypt and Decrypt, without any key."""
    if request.headers["x-amz-target"].endswith(".Encrypt"):
        return 200, {"CiphertextBlob": request.body["Plaintext"]}
    return 200, {"Plaintext": request.body["CiphertextBlob"], "KeyId": request.body["KeyId"]}


def test_kms_sees_no_tenant_and_no_keyset(arn: str) -> None:
    """The context, which CloudTrail shows, holds the environment and a digest."""
    with serving(wrapping) as service:
        keys = AwsKms(arn, environment="test", client=client_of(service.address))
        assert keys.kek.decrypt(keys.kek.encrypt(KEYSET, BOUND), BOUND) == KEYSET
        for request in service.asked:
            context = request.body["EncryptionContext"]
            assert context.pop("tenantguard-environment") == "test"
            assert len(context.pop("tenantguard-keyset")) == 64
            assert not context
            assert request.body["KeyId"] == arn
            assert "4711" not in str(request)
        assert len(base64.b64decode(service.asked[0].body["Plaintext"])) == 32
        assert len(service.asked) == 2


def test_nothing_is_sent_before_it_is_needed(arn: str) -> None:
    """Making the provider and asking for its key talks to nobody."""
    with serving(wrapping) as service:
        keys = AwsKms(arn, environment="test", client=client_of(service.address))
        assert keys.kek is keys.kek
        assert keys.uri == f"aws-kms:test/{arn.rpartition('/')[2]}"
        assert service.asked == []


def test_a_lost_connection_is_tried_once_more(arn: str) -> None:
    """One that breaks is made anew, once."""
    with serving(wrapping) as service:
        keys = AwsKms(arn, environment="test", client=client_of(service.address))
        service.breaks = 1
        assert keys.kek.encrypt(KEYSET, BOUND)
        assert len(service.asked) == 2
        service.breaks = 2
        refused_by(keys, "could not be reached")
        assert len(service.asked) == 4


def test_a_slow_answer_is_not_waited_for(arn: str) -> None:
    """After the timeout it is an error, and KMS is not asked again."""
    with serving(wrapping) as service:
        client = client_of(service.address)
        keys = AwsKms(arn, environment="test", client=client, timeout=0.1)
        service.held.clear()
        refused_by(keys, "did not answer in time")
        assert len(service.asked) == 1


def test_nobody_listens(arn: str) -> None:
    """A service that is down says so."""
    client = client_of(closed_address())
    refused_by(AwsKms(arn, environment="test", client=client), "could not be reached")


@pytest.mark.parametrize(
    ("code", "because"),
    [
        ("AccessDeniedException", "Allow the application's role kms:Encrypt and kms:Decrypt"),
        ("IncorrectKeyException", "Another key of AWS KMS"),
        ("DisabledException", "disabled in AWS KMS"),
        ("KMSInvalidStateException", "waiting for its deletion"),
        ("ThrottlingException", "answered ThrottlingException"),
        ("what 4711", "answered no code"),
    ],
)
def test_a_refusal_names_its_code_and_not_its_text(arn: str, code: str, because: str) -> None:
    """The text of KMS names accounts and roles, and is not shown; it is not asked again."""
    document = {"__type": code, "message": f"arn:aws:iam::111122223333:role/{SECRET} may not"}
    with serving(lambda _: (400, json.dumps(document).encode())) as service:
        keys = AwsKms(arn, environment="test", client=client_of(service.address))
        refused_by(keys, because)
        assert len(service.asked) == 1


@pytest.mark.parametrize("content", [b"{}", b"<html>a login page</html>", b'{"CiphertextBlob": 5}'])
def test_another_answer_is_refused(arn: str, content: bytes) -> None:
    """What is not KMS's: some other server at its address."""
    with serving(lambda _: (200, content)) as service:
        keys = AwsKms(arn, environment="test", client=client_of(service.address))
        refused_by(keys, "did not answer as documented|cannot ask AWS KMS")


# -- how it is set up -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key_id", ["", "alias/tenants", "arn:aws:kms:eu-central-1:111122223333:alias/x", "4711"]
)
def test_only_one_key_is_taken(key_id: str) -> None:
    """An alias can be pointed at another key, and is refused."""
    with pytest.raises(ConfigurationError, match="takes the ARN or the id of one key"):
        AwsKms(key_id, environment="test")


def test_a_malformed_environment_is_refused(arn: str) -> None:
    """The label stands in messages and in the database."""
    with pytest.raises(ConfigurationError, match="label"):
        AwsKms(arn, environment="no label")


def test_replicas_have_one_name() -> None:
    """A multi-Region key opens in each region what it has wrapped in another."""
    name = f"mrk-{uuid4().hex}"
    one, two = (
        AwsKms(f"arn:aws:kms:{region}:111122223333:key/{name}", environment="test")
        for region in ("eu-central-1", "eu-west-1")
    )
    assert one.uri == two.uri == f"aws-kms:test/{name}"
    assert repr(one) == f"<AwsKms environment='test' key={name!r}>"


def test_without_a_client_boto3_looks_as_ever(monkeypatch: pytest.MonkeyPatch, arn: str) -> None:
    """The region is the ARN's, the credentials those that boto3 finds, the address too."""
    with serving(wrapping) as service:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "an-access-key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        monkeypatch.setenv("AWS_ENDPOINT_URL", service.address)
        keys = AwsKms(arn.replace("eu-central-1", "sa-east-1"), environment="test")
        assert keys.kek.decrypt(keys.kek.encrypt(KEYSET, BOUND), BOUND) == KEYSET
        assert "/sa-east-1/kms/" in service.asked[0].headers["authorization"]


def test_what_boto3_lacks_is_named(monkeypatch: pytest.MonkeyPatch, arn: str) -> None:
    """Without credentials nothing is sent."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    refused_by(AwsKms(arn, environment="test"), "NoCredentialsError.*Look at the credentials")


def test_a_client_that_cannot_be_made(arn: str) -> None:
    """The user's function fails: its error's text may hold a secret, and is not shown."""

    def client(_: Any) -> Any:
        raise ValueError(SECRET)

    refused_by(AwsKms(arn, environment="test", client=client), "client=….* has raised ValueError")


def test_the_package_is_an_extra(monkeypatch: pytest.MonkeyPatch, arn: str) -> None:
    """Without boto3 the first engine is not protected, and the extra is named."""
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ConfigurationError, match=r"Install `tenantguard\[aws\]`"):
        _ = AwsKms(arn, environment="test").kek
