"""Let this Python's virtual environment import the packages of another one with the same Python.

Usage: put_on_top.py BELOW. The packages of this environment come first. Packages that BELOW can import from a third
environment can be imported here, too.
"""  # noqa: INP001

import sys
import sysconfig
from pathlib import Path

NAME = "_seedcore_layer.pth"


def main() -> None:
    """Write the file that Python reads when it starts."""
    packages = sysconfig.get_path("purelib")
    below = sysconfig.get_path("purelib", vars={"base": sys.argv[1]})
    Path(packages, NAME).write_text(f"import site; site.addsitedir({below!r})\n", encoding="utf-8")


if __name__ == "__main__":
    main()
