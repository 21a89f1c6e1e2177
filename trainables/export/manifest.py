"""The frame of a packed file: its header, its manifest and its checksum.

magic (4) | version (2) | manifest length (4) | manifest, deflated JSON | blob | BLAKE2b-64 of all before (8)
"""

import hashlib
import json
import struct
import zlib
from typing import Annotated, Self, get_args

from pydantic import Field, ValidationError, model_validator

from trainables.config import ModelConfig, Section
from trainables.errors import PackedFileError
from trainables.export.coding import CODES, Storage
from trainables.models.edits import GATES, MOST_EDITS, Edit, dumped
from trainables.quantize import ActivationForm

MAGIC = b"PKNN"
VERSION = 4
_PREFIX = struct.Struct("<4sHI")
_DIGEST_BYTES = 8
_MANIFEST_LIMIT = 1 << 20
_FIRST_STORAGE: frozenset[Storage] = frozenset({"fp32", "signs", "layer", "filter"})
_EARLY_KINDS: frozenset[ActivationForm] = frozenset({"sign", "ternary", "int8"})

Kind = ActivationForm
KINDS: tuple[Kind, ...] = get_args(Kind)


class PackedHeader(Section):
    """What is needed to rebuild the network and to feed it: pixels in [0, 1] are normalised as (x - mean) / std."""

    model: ModelConfig
    channels: int = Field(ge=1, le=64)
    classes: int = Field(ge=1, le=100_000)
    image_size: int = Field(ge=1, le=4096)
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @model_validator(mode="after")
    def _resolved(self) -> Self:
        width_open = self.model.ours and self.model.width is None
        if width_open or not len(self.mean) == len(self.std) == self.channels:
            msg = f"model.width is {self.model.width}, and {self.channels} channels need as many means and deviations"
            raise ValueError(msg)
        return self


class Manifest(Section):
    """The header, the shape of each layer's weight and how it is stored, and what later versions added.

    `input_bits` has one number a layer, 0 for fp32, or is empty; `activations` holds places among the model's modules;
    `others` counts the tensors that belong to no layer. `edits` put chains of layers in the place of some (version 3;
    with gates or without BN version 4). `grids` (version 4) has an entry a layer of codes: its groups, and the bytes of
    the number that tells a filter's group; 0 where filters next to one another are grouped.
    """

    header: PackedHeader
    shapes: tuple[tuple[int, ...], ...]
    storage: tuple[Storage, ...]
    input_bits: tuple[Annotated[int, Field(ge=0, le=32)], ...] = ()
    activations: dict[Kind, tuple[int, ...]] = Field(default_factory=dict)
    others: int = 0
    edits: Annotated[tuple[Edit, ...], Field(max_length=MOST_EDITS)] = ()
    grids: tuple[tuple[Annotated[int, Field(ge=1, le=1 << 16)], Annotated[int, Field(ge=0, le=2)]], ...] = ()

    @model_validator(mode="after")
    def _one_entry_a_layer(self) -> Self:
        counts = {len(self.shapes), len(self.storage), len(self.input_bits) or len(self.shapes)}
        if len(counts) > 1:
            msg = f"shapes, storage and input_bits are of {sorted(counts)} layers"
            raise ValueError(msg)
        coded = sum(kind in CODES for kind in self.storage)
        if len(self.grids) != coded:
            msg = f"grids are of {len(self.grids)} layers, and {coded} hold codes"
            raise ValueError(msg)
        return self

    def version(self) -> int:
        """The first version of the format that has all of it."""
        parts = (part.kind for edit in self.edits for part in edit.parts)
        if self.grids or not _EARLY_KINDS.issuperset(self.activations) or not GATES.isdisjoint(parts):
            return 4
        if self.edits:
            return 3
        new = self.input_bits or self.activations or self.others or not _FIRST_STORAGE.issuperset(self.storage)
        return 2 if new else 1


def framed(manifest: Manifest, blob: bytes) -> bytes:
    """The packed file."""
    fields = manifest.model_dump(mode="json", exclude_defaults=True)
    if manifest.edits:
        fields["edits"] = dumped(manifest.edits)  # with the kinds of parts, which are defaults
    text = json.dumps(fields, separators=(",", ":"))
    packed = zlib.compress(text.encode(), 9)
    body = _PREFIX.pack(MAGIC, manifest.version(), len(packed)) + packed + blob
    return body + _digest(body)


def opened(data: bytes) -> tuple[Manifest, bytes]:
    """The manifest and the blob of a file whose checksum is right.

    Raises:
        PackedFileError: it is no packed file, of a later version, or not as it was written.

    """
    if data[:4] == MAGIC and len(data) < _PREFIX.size + _DIGEST_BYTES:
        msg = f"the packed file is too short: it ends after {len(data)} bytes; export it again"
        raise PackedFileError(msg)
    if data[:4] != MAGIC:
        msg = f"not a packed file: {len(data)} bytes that begin with {data[:4]!r}, not {MAGIC!r}"
        raise PackedFileError(msg)
    _, version, length = _PREFIX.unpack_from(data)
    if not 1 <= version <= VERSION:
        msg = f"the packed file has version {version}; this release reads up to version {VERSION}"
        raise PackedFileError(msg)
    body, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if _digest(body) != digest:
        msg = "the packed file is truncated or was changed: its checksum does not match; export it again"
        raise PackedFileError(msg)
    start = _PREFIX.size + length
    manifest = _manifest(body[_PREFIX.size : start])
    if manifest.version() != version:
        msg = f"the packed file says version {version} and holds what is of version {manifest.version()}"
        raise PackedFileError(msg)
    return manifest, body[start:]


def _manifest(deflated: bytes) -> Manifest:
    try:
        return Manifest.model_validate_json(zlib.decompressobj().decompress(deflated, _MANIFEST_LIMIT))
    except (zlib.error, ValidationError) as error:
        msg = f"the manifest of the packed file cannot be read: {error}"
        raise PackedFileError(msg) from error


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest()
