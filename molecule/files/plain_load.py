"""Send tasks at a fixed rate by plain HTTP until a file appears; print the outcome as JSON.

Each task has a connection of its own, and none is repeated. Usage: plain_load.py FILE TASKS_PER_S
"""  # noqa: INP001

import itertools
import json
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TIMEOUT_S = 60
URL = "http://127.0.0.1:8700/coordinator/tasks"
TOKEN = Path("/opt/seedcore/etc/token").read_text().strip()
seconds: list[float] = []
# When each task was answered, to find the longest time without an answer.
moments: list[float] = []
failed: Counter[str] = Counter()


def send(number: int) -> None:
    """Send one task."""
    body = json.dumps({"type": "execute", "params": {"number": number}, "timeout_s": TIMEOUT_S}).encode()
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    begun = time.monotonic()
    try:
        request = urllib.request.Request(URL, data=body, headers=headers)
        with urllib.request.urlopen(request, timeout=2 * TIMEOUT_S) as response:  # noqa: S310 - http
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        answer = {"success": False, "error_type": f"HTTP {error.code}", "error": error.read().decode()[:200]}
    except (OSError, ValueError) as error:
        answer = {"success": False, "error_type": type(error).__name__, "error": str(error)}
    ended = time.monotonic()
    seconds.append(ended - begun)
    moments.append(ended)
    if not answer["success"]:
        failed[f"{answer.get('error_type')}: {answer.get('error')} (executed: {answer.get('executed')})"] += 1


end, pause_s = Path(sys.argv[1]), 1 / float(sys.argv[2])
sent, next_at = 0, time.monotonic()
with ThreadPoolExecutor(200) as threads:
    while not end.exists():
        threads.submit(send, sent)
        sent, next_at = sent + 1, next_at + pause_s
        time.sleep(max(0.0, next_at - time.monotonic()))
ordered, ends = sorted(seconds), sorted(moments)
print(  # noqa: T201
    json.dumps(
        {
            "sent": sent,
            "failed": failed,
            "p50_s": round(ordered[len(ordered) // 2], 4),
            "p99_s": round(ordered[len(ordered) * 99 // 100], 4),
            "longest_s": round(ordered[-1], 3),
            "longest_pause_s": round(max(after - before for before, after in itertools.pairwise(ends)), 3),
        }
    )
)
