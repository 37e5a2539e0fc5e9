"""``python -m seedcore`` is the command line."""

from seedcore.cli import main

if __name__ == "__main__":
    main()
