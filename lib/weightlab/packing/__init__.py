"""A compressed network as a file whose size is the claim: written, read back, and exported to ONNX."""

from weightlab.packing.packed_file import RESTS, Packed, pack, read, write

__all__ = ["RESTS", "Packed", "pack", "read", "write"]
