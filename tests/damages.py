"""Ways in which a file of records can be damaged."""

import pandas as pd

from weightlab import storage


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file, byte=None):
    content = bytearray(file.read_bytes())
    content[len(content) // 3 if byte is None else byte] ^= 4
    file.write_bytes(content)


DAMAGES = {
    "cut short": cut,
    "empty": lambda file: file.write_bytes(b""),
    "a flipped bit in the records": flip,
    "a flipped bit in the state": lambda file: flip(file, file.read_bytes().index(b'{"search"') + 20),
    "a flipped bit in its checksum": lambda file: flip(
        file, file.read_bytes().rindex(storage.SEAL_PLACE) + len(storage.SEAL_PLACE)
    ),
    "another table": lambda file: pd.DataFrame({"a": [1]}).to_parquet(file),
}
