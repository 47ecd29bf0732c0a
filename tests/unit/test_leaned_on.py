"""What we lean on in libraries beyond what they promise: its text, by digest, so that an update that changes it shows.

When this fails, an update has changed something here. Read the change (`git log` of the library, or both texts), see
whether what is said beside it still holds, and write the new digest.
"""

import inspect
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

import aiobotocore.session
import aiobotocore.signers
import botocore.httpsession
import botocore.utils
import kafka.protocol.schemas
import pytest

RESOURCES = Path(kafka.protocol.schemas.__file__).parent / "resources"


def digest(texts: Iterable[str]) -> str:
    whole = sha256()
    for text in texts:
        whole.update(text.encode())
    return whole.hexdigest()[:16]


def schemas(*names: str) -> Iterable[str]:
    return (file.read_text() for name in names for file in sorted(RESOURCES.rglob(f"{name}Re*.json")))


LEANED_ON = {
    "credentials are asked for by load_credentials of the component credential_provider (s3_client.KeyRing)": (
        digest([inspect.getsource(aiobotocore.session.AioSession._create_client)]),
        "e87fdfc754f67bdc",
    ),
    "choose-signer may change the signer of URLs (s3_client._sigv4_for_urls)": (
        digest([inspect.getsource(aiobotocore.signers.AioRequestSigner._choose_signer)]),
        "4b7473c43f487ebb",
    ),
    "where botocore finds authorities (s3_client.tls_context)": (
        digest([inspect.getsource(botocore.httpsession.get_cert_path)]),
        "142075cf59813df4",
    ),
    "which proxies botocore takes from the environment (s3_client.is_proxied)": (
        digest([inspect.getsource(botocore.utils.get_environ_proxies)]),
        "8c6f833d59c75dee",
    ),
    "messages that we encode again have no tagged field that would be lost (protocol/codec.py)": (
        digest(schemas("ListOffsets", "DeleteRecords")),
        "f65195a6deb58689",
    ),
    "messages that we only read (protocol/codec.py)": (
        digest(schemas("Metadata", "OffsetForLeaderEpoch", "DescribeConfigs", "DescribeProducers")),
        "31d76b7b981a1f92",
    ),
}


@pytest.mark.parametrize("what", LEANED_ON)
def test_it_is_as_we_know_it(what: str) -> None:
    found, known = LEANED_ON[what]
    assert found == known, f"an update has changed this: {what}"


def test_there_are_schemas_to_look_at() -> None:
    assert len(list(schemas("ListOffsets", "DeleteRecords"))) == 4
