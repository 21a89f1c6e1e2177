"""URIs of filesystems, taken apart once: what may be shown, and what opens them. Imports nothing heavy."""

from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from orchestrator.errors import StoreError
from orchestrator.storage.secrets import SHORTEST, redacted

SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs")
"""What pyarrow opens by itself; `fsspec+NAME` is what fsspec opens."""

WHOLE_OBJECTS = frozenset({"s3", "gs", "gcs", "abfs", "abfss"})
"""Where a file appears when it is written to its end, and not before."""

S3_OPTIONS = (
    "region", "scheme", "endpoint_override", "anonymous", "role_arn", "session_token", "force_virtual_addressing",
    "tls_ca_file_path",
)  # fmt: skip
SHOWN = frozenset({"region", "scheme", "endpoint_override", "anonymous"})


@dataclass(frozen=True, slots=True)
class Address:
    """A filesystem: the bucket, container or host of a URI, and what opens it.

    `options` are the settings of the query. `user` and `password` are those in front of the `@`; for S3 the two
    keys. Only what `SHOWN` names is ever shown.
    """

    scheme: str
    place: str
    options: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    def uri(self, path: str) -> str:
        """The URI of a path there, fit to be shown and, where the environment has the keys, to be given again."""
        shown = "&".join(f"{name}={value}" for name, value in self.options if name in SHOWN)
        return f"{self.scheme}://{self.place}{'/' if path else ''}{path}{'?' + shown if shown else ''}"

    def redacted(self, text: str) -> str:
        """A text of the filesystem's own, without what opens it."""
        hidden = [value for name, value in self.options if name not in SHOWN and len(value) >= SHORTEST]
        return redacted(text, {*hidden, *filter(None, (self.user, self.password))})


def parsed(text: str) -> tuple[Address, str]:
    """The filesystem of a URI, and the path there.

    Raises:
        StoreError: the URI is of an unknown kind or malformed; its secrets do not stand in the message.

    """
    scheme, _, rest = text.partition("://")
    shown = f"{scheme}://..."
    if scheme not in SCHEMES and not scheme.startswith("fsspec+"):
        known = ", ".join(f"{name}://" for name in (*SCHEMES, "fsspec+NAME"))
        raise StoreError(f"{shown}: unknown kind of storage; known are {known}, file:// and folders of this machine")
    parts = urlsplit(f"//{rest}")
    login, at, place = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    if "@" in parts.path or (not at and ":" in place and not place.rpartition(":")[2].isdecimal()):
        raise StoreError(f"{shown}: a key or secret in a URI that holds / or @ has to be written with %2F or %40")
    path = "/".join(part for part in unquote(parts.path).split("/") if part)
    if any(part in (".", "..") for part in path.split("/")):
        raise StoreError(f"{scheme}://{place}/{path}: a path with . or .. in it; write it out")
    if not place and scheme in ("s3", "gs", "gcs"):
        raise StoreError(f"{shown}: names no bucket; write {scheme}://BUCKET/PREFIX")
    options = tuple(parse_qsl(parts.query, keep_blank_values=True))
    if scheme.startswith("abf"):  # there it is the container
        place, user = parts.netloc, ""
    address = Address(scheme, place, options, unquote(user), unquote(password))
    unknown = [name for name, _ in options if scheme == "s3" and name not in S3_OPTIONS]
    if unknown:
        raise StoreError(f"{address.uri(path)}: unknown option {unknown[0]!r}; valid are {', '.join(S3_OPTIONS)}")
    if bool(user) != bool(password) and scheme == "s3":
        raise StoreError(f"{address.uri(path)}: a key needs its secret: s3://KEY:SECRET@BUCKET/PREFIX")
    return address, path
