"""Version 2 of a packed file (docs/format.md): compressed metadata, then the bytes of all parts and tensors, without names or gaps."""

import hashlib
import json
import zlib
from contextlib import suppress

import numpy as np
import torch
from safetensors.torch import save

from weightlab import formats
from weightlab.compression import kinds
from weightlab.compression.contract import Labels, Stored, Values
from weightlab.errors import UserError
from weightlab.packing import metadata, parts
from weightlab.packing.compact_metadata import (
    Coded,
    CodedTensor,
    CompactDetails,
    ConstantTensor,
    LabelsPart,
    RawTensor,
    ValuesPart,
)

MAGIC, VERSION = b"WLAB", 2
SEAL = slice(5, 13)  # the first bytes of the file's SHA-256
HEAD = 17  # bytes: the magic, the version, the seal, and the length of the metadata
DICTIONARY = (  # texts that a decompressor has before the first byte, the most frequent last
    b'"settings":{"low":,"step":0.},"rate-distortion sharing, level "zstd""packed""values""float32""validation""test"'
    b'{"written_by":"weightlab 0.1.0","network":"lenet5_","method":"","plan":[,"same":{"accuracy":[{"split":"mnist ","images":5000,'
    b'"original":0.9,"packed":0.9}],"original_bytes":,"source":"","tensors":[{"name":".running_mean","shape":[],"type":"F32","value":0.0},'
    b'".num_batches_tracked","type":"I64","value":.running_var","features.feature_extractor.0.classifier.1.conv.0.bias","kind":"grid",'
    b'"groups":[{"kind":"codebook","settings":{"k":},"parts":{"centroids":{"n":4,"format":"float16"},"labels":{"bits":3,"coding":"range",'
    b'"length":1}},"weights":[["0.weight",[120,1,3,3]]],"error":0.0'
)
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def join(details: CompactDetails, data: bytes) -> bytes:
    """A file: its head, the metadata, and the bytes of parts and tensors in the order of the metadata."""
    return sealed(details.model_dump(exclude_defaults=True), data)


def sealed(metadata: dict, data: bytes) -> bytes:
    """As `join`, of metadata that may be wrong."""
    text = json.dumps(metadata, separators=(",", ":")).encode()
    deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS, zdict=DICTIONARY)
    packed = deflater.compress(text) + deflater.flush()
    blank = MAGIC + bytes([VERSION]) + bytes(SEAL.stop - SEAL.start) + len(packed).to_bytes(4, "little") + packed + data
    return _with_seal(blank, _digest(blank))


def start(head: bytes, size: int) -> int:
    """Where the data begin in a file of `size` bytes; raises `UserError` for another version, or if that is beyond the file."""
    version = head[len(MAGIC)] if len(head) >= HEAD else 0
    if version != VERSION:
        raise UserError(f"it has version {version} of the format, this weightlab reads up to {VERSION}; update weightlab")
    length = int.from_bytes(head[SEAL.stop : HEAD], "little")
    if not 2 <= length <= min(size - HEAD, metadata.LARGEST_HEADER):
        raise UserError(
            f"it declares metadata of {length} bytes in a file of {size}; at most {metadata.LARGEST_HEADER} are allowed"
        )
    return HEAD + length


def parse(content: bytes) -> tuple[CompactDetails, int]:
    """The metadata of a file, and where its data begin; raises `UserError` for any other bytes."""
    end = start(content, len(content))
    inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS, zdict=DICTIONARY)
    try:
        text = inflater.decompress(content[HEAD:end], metadata.LARGEST_HEADER)
    except zlib.error as error:
        raise UserError(f"its metadata cannot be read ({error})") from None
    if not inflater.eof or inflater.unused_data:
        raise UserError(f"its metadata are not one stream of at most {metadata.LARGEST_HEADER} bytes of text")
    return metadata.validated(CompactDetails, metadata.parsed(text)), end


def check(content: bytes, details: CompactDetails, start: int) -> None:
    """Raise `UserError` for a wrong checksum, and for metadata that do not fit each other or the bytes of the file."""
    if _digest(_with_seal(content, bytes(SEAL.stop - SEAL.start))) != content[SEAL]:
        raise UserError("its checksum is wrong: it was damaged or changed since it was written")
    if details.plan and len(details.plan) != len(details.groups):
        raise UserError(f"its plan has {len(details.plan)} numbers for {len(details.groups)} groups")
    metadata.check_places(details.groups, [tensor.name for tensor in details.tensors], details.same)
    data_bytes = sum(each.length for each in [*details.groups, *details.tensors])
    if start + data_bytes != len(content):
        raise UserError(f"its parts and tensors take {data_bytes} bytes, and it holds {len(content) - start}")


def unpacked_bytes(details: CompactDetails) -> int:
    """What the network and its parts take in memory, parts that its kinds do not need among them."""
    numbers = 0
    for each in [*details.groups, *details.tensors]:
        if isinstance(each, Coded):  # labels count as values do: decoding takes about as much
            numbers += each.size + sum(part.n if isinstance(part, ValuesPart) else each.size for part in each.parts.values())
        else:
            numbers += 2 * each.size  # of up to 64 bits
    return 4 * numbers


def read(content: bytes, details: CompactDetails, start: int) -> tuple[list[Stored], dict[str, torch.Tensor]]:
    """The stored parts of each group, and all other tensors by name, of a file that `check` has let pass."""
    data, at = np.frombuffer(content, dtype=np.uint8), start

    def take(size: int) -> np.ndarray:
        nonlocal at
        at += size
        return data[at - size : at]

    def stored(name: str, n: int, coded: Coded) -> Stored:
        found: dict[str, Values | Labels] = {}
        for part, its in coded.parts.items():
            raw, what = take(its.length), f"the {part} of {name!r}"
            if isinstance(its, LabelsPart):
                found[part] = Labels(parts.read_labels(raw, n, its.bits, its.coding, what), its.bits)
            else:
                found[part] = Values(parts.read_values(_typed(raw, formats.get(its.format).dtype), its.format, what), its.format)
        result = Stored(coded.kind, found, coded.settings)
        try:
            kinds.weights(result, n)
        except UserError as error:
            raise UserError(f"the parts of {name!r} cannot be decoded: {error}") from None
        return result

    groups = [stored(group.weights[0][0], group.size, group) for group in details.groups]
    tensors: dict[str, torch.Tensor] = {}
    for tensor in details.tensors:
        if isinstance(tensor, CodedTensor):
            values = kinds.weights(stored(tensor.name, tensor.size, tensor), tensor.size)
            tensors[tensor.name] = torch.from_numpy(values).reshape(tensor.shape)
        elif isinstance(tensor, RawTensor):
            tensors[tensor.name] = _raw(take(tensor.length), tensor)
        else:
            tensors[tensor.name] = _constant(tensor)
    return groups, tensors


def described(name: str, tensor: torch.Tensor) -> RawTensor | ConstantTensor:
    """The description of a tensor: constant, if JSON gives its only value back, else raw."""
    shape, type = list(tensor.shape), NAMES[tensor.dtype]
    if tensor.numel() and tensor.dtype != torch.bool and bool(tensor.isfinite().all()):
        constant = ConstantTensor(name=name, shape=shape, type=type, value=tensor.reshape(-1)[0].item())
        if raw(_constant(constant)) == raw(tensor):
            return constant
    return RawTensor(name=name, shape=shape, type=type)


def raw(tensor: torch.Tensor) -> bytes:
    """The bytes of a tensor, as they are in a file."""
    return save({"": tensor.detach().cpu().contiguous()})[-tensor.nbytes :] if tensor.numel() else b""


def _raw(raw: np.ndarray, tensor: RawTensor) -> torch.Tensor:
    if tensor.type == "BOOL" and (raw > 1).any():
        raise UserError(f"its tensor {tensor.name!r} of BOOL holds bytes other than 0 and 1")
    return _typed(raw, DTYPES[tensor.type]).reshape(tensor.shape)


def _constant(tensor: ConstantTensor) -> torch.Tensor:
    dtype = DTYPES[tensor.type]
    if dtype != torch.bool and dtype.is_floating_point == isinstance(tensor.value, float):
        limits = torch.finfo(dtype) if dtype.is_floating_point else torch.iinfo(dtype)
        if limits.min <= tensor.value <= limits.max:  # torch makes 255 of -1 in U8
            with suppress(RuntimeError, TypeError, OverflowError):  # a shape without values may be beyond torch
                return torch.full(tensor.shape, tensor.value, dtype=dtype)
    raise UserError(f"its tensor {tensor.name!r} of {tensor.type} cannot hold {tensor.value!r}")


def _typed(raw: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    """Bytes, which may lie anywhere, as a tensor of one axis."""
    return torch.frombuffer(bytearray(raw), dtype=dtype) if len(raw) else torch.zeros(0, dtype=dtype)


def _with_seal(content: bytes, seal: bytes) -> bytes:
    return content[: SEAL.start] + seal + content[SEAL.stop :]


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[: SEAL.stop - SEAL.start]
