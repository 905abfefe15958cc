"""`python -m weightlab.data`: fetch and check what the notebooks need."""

import argparse

from weightlab import errors
from weightlab.data import downloads


def main() -> None:
    """Fetch and check what the notebooks need."""
    parser = argparse.ArgumentParser(prog="python -m weightlab.data", description=main.__doc__)
    allowed = list(downloads.CHECKSUMS)
    parser.add_argument("datasets", nargs="*", default=allowed, metavar="DATASET", help="default: all with a checksum")
    for dataset in parser.parse_args().datasets:
        errors.choose("dataset with checksums", dataset, allowed)
        print(f"{dataset}: {downloads.fetch(dataset)} (checksums verified)")


errors.run(main)
