"""The pyarrow filesystem of an address: opened once a process, patient with a server that is slow or answers errors."""

import os
import random
import time
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from orchestrator.storage.address import Address

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

CONNECT_S, ANSWER_S = 5.0, 10.0
"""How long a server may take to accept a connection, and to send nothing while it should."""

ATTEMPTS = 5
"""Of each request to S3: by the SDK, which waits a random share of 1, 2, 4, 8 s between them."""

ROUNDS, PAUSE_S = 2, 2.0
"""Of what consists of several requests, or is not S3: by us, with a random share of the pause, twice as long each."""

PERMANENT = (
    "NO_SUCH_BUCKET", "ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "status 301", "status 400",
    "status 401", "status 403", "InvalidAccessKeyId", "PermissionDenied", "Unauthenticated", "Permission denied",
)  # fmt: skip
"""What no second try would change."""

T = TypeVar("T")


@cache
def opened(address: Address) -> "tuple[FileSystem, str]":
    """The filesystem, and the path of its address there.

    Raises:
        OSError: it cannot be opened.

    """
    from pyarrow import fs

    if address.scheme == "s3":
        return _s3(address), address.place
    login = f"{address.user}:{address.password}@" if address.password else ""
    query = "&".join(f"{name}={value}" for name, value in address.options)
    try:
        return fs.FileSystem.from_uri(f"{address.scheme}://{login}{address.place}/{'?' + query if query else ''}")
    except (ValueError, ImportError, NotImplementedError) as error:
        raise OSError(str(error)) from error


def _s3(address: Address) -> "FileSystem":
    from pyarrow import fs

    given = dict(address.options)
    endpoint = given.get("endpoint_override") or _endpoint_of_environment()
    scheme, _, host = endpoint.rpartition("://")
    region = given.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return fs.S3FileSystem(
        access_key=address.user or None,
        secret_key=address.password or None,
        session_token=given.get("session_token"),
        anonymous=_is_true(given.get("anonymous")),
        role_arn=given.get("role_arn"),
        region=region or (None if endpoint else fs.resolve_s3_region(address.place)),
        scheme=given.get("scheme") or scheme or None,
        endpoint_override=host or None,
        force_virtual_addressing=_is_true(given.get("force_virtual_addressing")),
        tls_ca_file_path=given.get("tls_ca_file_path"),
        connect_timeout=CONNECT_S,
        request_timeout=ANSWER_S,
        allow_delayed_open=True,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
    )


def _endpoint_of_environment() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def _is_true(text: str | None) -> bool:
    return (text or "").lower() in ("1", "true", "yes")


def patiently(action: Callable[[], T]) -> T:
    """What the action gives, after a few tries where the storage fails for the moment.

    Raises:
        OSError: it failed each time, or would always.

    """
    import pyarrow as pa

    for number in range(ROUNDS):
        try:
            return action()
        except (OSError, pa.ArrowException) as error:
            known = isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError | PermissionError)
            if known or number + 1 == ROUNDS or any(word in str(error) for word in PERMANENT):
                raise
        time.sleep(random.uniform(0.5, 1) * PAUSE_S * 2**number)  # noqa: S311 - so that many do not try at once
    raise AssertionError
