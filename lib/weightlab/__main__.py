"""`python -m weightlab`: the command `weightlab`."""

from weightlab.cli import main

if __name__ == "__main__":
    main()
