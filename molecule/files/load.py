"""Submit tasks until a file appears, durable ones and others, a few each second; print what became of them, as JSON.

Where to submit is read again after a failure, so it follows a head that moves. ``away_s`` is the longest time without
an answer.

Usage: load.py FILE TIMEOUT_S
"""  # noqa: INP001

import json
import os
import shlex
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from seedcore import Client
from seedcore.core.settings import Settings

PAUSE_S = 0.2
ENOUGH = Path(sys.argv[1])
TIMEOUT_S = float(sys.argv[2])
ENVIRONMENT = Path(os.environ["SEEDCORE_STATE_DIR"]).parents[1] / "etc/seedcore.env"
lock = threading.Lock()
done = {"answered": 0, "durable": 0}
failed: Counter[str] = Counter()
answered_at = time.monotonic()
away_s = 0.0


def settings() -> Settings:
    """Read where the Coordinator is now."""
    lines = [line.partition("=") for line in ENVIRONMENT.read_text(encoding="utf-8").splitlines()]
    return Settings.from_env(
        os.environ | {name: "".join(shlex.split(text)) for name, _, text in lines if name.isidentifier()}
    )


def submit(*, durable: bool) -> None:
    """Submit one task after the other."""
    global answered_at, away_s  # noqa: PLW0603
    kind = "durable" if durable else "answered"
    while not ENOUGH.exists():
        success = True
        with Client(settings(), transport="http") as client:
            while success and not ENOUGH.exists():
                answer = client.submit(
                    {"type": "echo", "params": {"at": time.time()}}, timeout_s=TIMEOUT_S, durable=durable
                )
                success = answer["success"]
                with lock:
                    if success:
                        done[kind] += 1
                        away_s = max(away_s, time.monotonic() - answered_at)
                        answered_at = time.monotonic()
                    else:
                        failed[
                            f"{kind}: {answer['error_type']}: {answer['error']} (executed: {answer['executed']})"
                        ] += 1
                time.sleep(PAUSE_S)


threads = [threading.Thread(target=submit, kwargs={"durable": durable}) for durable in (True, False, False)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
unknown = sum(number for text, number in failed.items() if text.endswith("(executed: unknown)"))
refused = sum(number for text, number in failed.items() if text.endswith("(executed: no)"))
told = {**done, "away_s": round(away_s, 1), "unknown": unknown, "refused": refused, "failed": failed}
print(json.dumps(told))  # noqa: T201
