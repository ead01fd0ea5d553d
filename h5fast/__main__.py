"""``python -m h5fast``: the command line, where its script is not on the path."""

from h5fast.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
