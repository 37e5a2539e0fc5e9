"""Install Python's bundled pip; replaces the script that ansible-test downloads for its virtual environments."""

import subprocess
import sys

subprocess.run([sys.executable, "-m", "ensurepip", "--default-pip"], check=True, stdout=subprocess.DEVNULL)
arguments = [argument for argument in sys.argv[1:] if argument not in {"--no-setuptools", "--no-wheel"}]
subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *arguments], check=True)
