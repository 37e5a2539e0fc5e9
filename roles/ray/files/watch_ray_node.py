"""Kill a running but unhealthy Ray node, so that its service restarts it; limit the logs of its dead processes.

``ray start --block`` keeps running if its child processes hang, and even if ``ray stop`` has ended all of them: the
service is active, but the node is dead. The health of the node's own agent detects that.
A worker whose head is unreachable is left alone: it waits for the head, and its actors keep running.
Usage: watch_ray_node.py HEALTH_URL TEMP_DIR SECONDS_TO_START SECONDS_UNHEALTHY LOG_BYTES LOG_FILES [HEAD_ADDRESS
HEAD_PORT]. With 0 SECONDS_UNHEALTHY no node is killed.
"""  # noqa: INP001

import socket
import sys
import threading
import time
import urllib.request

import dead_logs
import node_processes

INTERVAL_S = 5.0
REQUEST_TIMEOUT_S = 5.0
KILL_TIMEOUT_S = 10.0
LOGS_INTERVAL_S = 60.0


def say(text: str) -> None:
    """Write one line to the log."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def trouble(url: str) -> str:
    """Ask the agent; return what is wrong, "" if nothing is."""
    # Ask the node directly, without the proxies in the environment.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=REQUEST_TIMEOUT_S) as answer:
            return "" if answer.status == 200 else f"{url} answers {answer.status}"  # noqa: PLR2004 - HTTP's OK
    except OSError as error:
        return f"{url} does not answer: {getattr(error, 'reason', error)}"


def is_away(head: list[str]) -> bool:
    """Return whether the head does not listen; False on the head itself."""
    if not head:
        return False
    try:
        socket.create_connection((head[0], int(head[1])), timeout=REQUEST_TIMEOUT_S).close()
    except OSError:
        return True
    return False


def bound_logs(temp_dir: str, max_bytes: int, max_files: int) -> None:
    """Remove the oldest logs of dead processes repeatedly; run it in a thread, because a disk may hang."""
    while True:
        try:
            count, size = dead_logs.prune(temp_dir, max_bytes=max_bytes, max_files=max_files)
        except Exception as error:
            # The next round tries again, and nothing else depends on this one.
            say(f"logs of processes that are gone cannot be removed: {error!r}")
        else:
            if count:
                say(f"removed logs of processes that are gone: files={count} bytes={size}")
        time.sleep(LOGS_INTERVAL_S)


def main() -> None:
    """Watch for ever."""
    url, temp_dir, start_s, unhealthy_s = sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
    logs, head = (temp_dir, int(sys.argv[5]), int(sys.argv[6])), sys.argv[7:9]
    threading.Thread(target=bound_logs, args=logs, daemon=True).start()
    say(f"watching: url={url} start_s={start_s:g} unhealthy_s={unhealthy_s:g}")
    node, well_until, said = 0, 0.0, ""
    while True:
        pid = node_processes.launcher(temp_dir)
        now = time.monotonic()
        if pid != node:
            # Give a new start its time; the service restarts a missing process.
            node, well_until, said = pid, now + start_s, ""
        wrong = trouble(url) if pid else ""
        if wrong != said:
            say(f"node {pid}: {wrong or 'well'}")
            said = wrong
        if pid and (not wrong or is_away(head)):
            well_until = time.monotonic()
        elif pid and unhealthy_s and now - well_until >= unhealthy_s:
            say(f"kill the node: pid={pid} why={wrong}")
            left = node_processes.kill_all(temp_dir, timeout_s=KILL_TIMEOUT_S)
            say(f"killed: left={left}")
        time.sleep(INTERVAL_S)


main()
