"""``python -m lmmap``: the commands."""

from lmmap.cli import main

if __name__ == "__main__":
    main()
