"""Let the virtual environment of this Python see all packages of another one, which has the same Python.

Usage: put_on_top.py BELOW. The packages of this environment come first. What BELOW itself sees, this one sees, too.
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
