"""A compressed network as a file whose size is the claim: written, read back, and exported to ONNX."""

from weightlab.packing.packed_file import Packed, read
from weightlab.packing.writing import RESTS, coded_bytes, pack, pack_compressed, write, write_compressed

__all__ = ["RESTS", "Packed", "coded_bytes", "pack", "pack_compressed", "read", "write", "write_compressed"]
