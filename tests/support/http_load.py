"""Submit tasks over plain HTTP, each on a connection of its own and without retries, and print what has become of them.

It runs as a program, because a deployment may have a network of its own: ``http_load.py PORT RATE``. The first line of
the standard input is the token; at its end the program waits for the last answers and prints one line of JSON.
"""

from __future__ import annotations

import http.client
import itertools
import json
import sys
import threading
import time

# An open loop: as many senders as requests may be under way in a pause.
SENDERS = 200
_TIMEOUT_S = 120
_BODY = b'{"type": "echo", "params": {"text": "hi"}}'


def main() -> None:
    """Run until the end of the standard input."""
    port, rate = int(sys.argv[1]), float(sys.argv[2])
    token = sys.stdin.readline().strip()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    numbers, began, ends = itertools.count(), time.monotonic(), threading.Event()
    answered: list[float] = []
    failed: list[str] = []

    def submit() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
        try:
            connection.request("POST", "/coordinator/tasks", _BODY, headers)
            with connection.getresponse() as response:
                text = response.read()
            if response.status != http.HTTPStatus.OK:
                failed.append(f"HTTP {response.status}: {text[:200]!r}")
            else:
                answered.append(time.monotonic())
        except (OSError, http.client.HTTPException) as error:
            failed.append(f"{type(error).__name__}: {error}")
        finally:
            connection.close()

    def send() -> None:
        while not ends.wait(max(0.0, began + next(numbers) / rate - time.monotonic())):
            submit()

    senders = [threading.Thread(target=send) for _ in range(SENDERS)]
    for sender in senders:
        sender.start()
    sys.stdin.read()
    ends.set()
    for sender in senders:
        sender.join()
    times = sorted(answered)
    pause_s = max((after - before for before, after in itertools.pairwise(times)), default=0.0)
    sys.stdout.write(json.dumps({"done": len(answered), "failed": failed, "pause_s": round(pause_s, 2)}) + "\n")


if __name__ == "__main__":
    main()
