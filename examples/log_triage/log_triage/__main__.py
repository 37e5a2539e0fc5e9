"""Triage every log that the organism's readers can read: ``python -m log_triage`` on a node of the cluster."""

from __future__ import annotations

import logging
import sys
from typing import Any

import ray

from seedcore import Client


def main() -> int:
    """Fan out one task for each file, merge the answers, print the report; exit 1 if a task failed."""
    ray.init(log_to_driver=False, logging_level=logging.ERROR)
    client = Client()
    logs = _result(client.submit({"type": "list_logs"}))
    tasks = [{"type": "triage_log", "params": {"file": log["file"]}} for log in logs["files"]]
    answers = client.submit_many(tasks)
    report = _result(
        client.submit({"type": "report_logs", "params": {"parts": [_result(answer) for answer in answers]}})
    )
    agents = sorted({answer["agent_id"] for answer in answers})
    sys.stdout.write(f"{report['text']}\n(read by {', '.join(agents)} in {logs['directory']})\n")
    return 0


def _result(answer: dict[str, Any]) -> Any:
    if not answer["success"]:
        sys.exit(f"{answer['task_type']}: {answer['error_type']}: {answer['error']}")
    return answer["result"]


if __name__ == "__main__":
    sys.exit(main())
