"""Run the command line: ``python -m seedcore``."""

from seedcore.cli import main

if __name__ == "__main__":
    main()
