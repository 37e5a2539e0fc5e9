"""Submit tasks until a file appears, durable ones and others, a few each second; print what became of them, as JSON.

Usage: load.py FILE
"""  # noqa: INP001

import json
import sys
import threading
import time
from pathlib import Path

from seedcore import Client

TIMEOUT_S = 300
PAUSE_S = 0.2
counts = {"answered": 0, "durable": 0}
failed: list[str] = []


def submit(*, durable: bool) -> None:
    """Submit one task after the other."""
    kind = "durable" if durable else "answered"
    with Client(transport="http") as client:
        while not Path(sys.argv[1]).exists():
            answer = client.submit(
                {"type": "echo", "params": {"at": time.time()}}, timeout_s=TIMEOUT_S, durable=durable
            )
            if answer["success"]:
                counts[kind] += 1
            else:
                failed.append(f"{kind}: {answer['error_type']}: {answer['error']} (executed: {answer['executed']})")
            time.sleep(PAUSE_S)


threads = [threading.Thread(target=submit, kwargs={"durable": durable}) for durable in (True, False, False)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps({**counts, "failed": failed}))  # noqa: T201
