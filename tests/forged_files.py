"""Packed files with a right checksum and wrong contents."""

import hashlib
import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any


def manifest_bytes(data: bytes) -> int:
    return int(struct.unpack_from("<4sHI", data)[2])


def signed(manifest: bytes, blob: bytes, version: int = 1) -> bytes:
    """A file with a right checksum, whatever it holds."""
    body = struct.pack("<4sHI", b"PKNN", version, len(manifest)) + manifest + blob
    return body + hashlib.blake2b(body, digest_size=8).digest()


def manifest_of(data: bytes) -> dict[str, Any]:
    return json.loads(zlib.decompress(data[10 : 10 + manifest_bytes(data)]))


def forged_file(
    changes: Mapping[str, Any], blob_change: int = 0, *, of: bytes, version: int | None = None, first: bytes = b""
) -> bytes:
    """A file with a right checksum, other entries in its manifest, and a blob that begins with `first`."""
    manifest = {**manifest_of(of), **changes}
    blob = of[10 + manifest_bytes(of) : -8]
    blob = blob[:blob_change] if blob_change < 0 else blob + bytes(blob_change)
    blob = first + blob[len(first) :]
    version = version or int(struct.unpack_from("<4sH", of)[1])
    return signed(zlib.compress(json.dumps(manifest).encode()), blob, version)
