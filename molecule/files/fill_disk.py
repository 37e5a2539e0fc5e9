"""Make a file so large that a disk is full by more than nine tenths."""  # noqa: INP001

import os
import shutil

FILLER = "/opt/filler"

usage = shutil.disk_usage("/opt")
with open(FILLER, "wb") as stream:  # noqa: PTH123
    os.posix_fallocate(stream.fileno(), 0, usage.free - usage.total // 20)
