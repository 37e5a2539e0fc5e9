"""Examples for OpenAPI: answers of a real Coordinator, shortened; a test holds them against the schemas."""

from __future__ import annotations

from typing import Any

from seedcore.core.reason import Reason

_ORGAN: dict[str, Any] = {
    "organ_id": "cognitive_organ_1",
    "organ_type": "Cognitive",
    "agent_count": 2,
    "status": "ready",
    "ready": True,
    "ready_agents": 2,
    "min_ready_agents": 2,
    "required": True,
    "in_flight": 0,
    "queued": 0,
    "replicas": [
        {
            "replica": 0,
            "state": "ready",
            "actor_id": "ef6f1dece5c0e67b88fd3a7001000000",
            "pid": 8266,
            "node_id": "94612dc52ff7550d0005b01cdf089dca9d9da0679a47a9057ea72e18",
            "agent_count": 2,
            "ready_agents": 2,
            "in_flight": 0,
            "queued": 0,
            "restarts": 0,
            "has_turn": False,
            "error": None,
        }
    ],
    "failed": [],
}
_HEALTHY: dict[str, Any] = {
    "status": "healthy",
    "reason": Reason.READY.value,
    "message": "1 of 1 organs ready, all agents ready",
    "remedy": "",
    "organism_initialized": True,
    "coordinator": "available",
    "degraded": False,
    "missing": [],
    "release": "0.1.0-4e0140ea2d4f",
    "since": "2026-11-24T21:31:56.256+00:00",
    "stage": "1 of 1 organs ready",
    "progress": {"organs_ready": 1, "organs": 1, "agents_ready": 2, "agents": 2},
    "init_seconds": 2.1,
    "init_attempts": 1,
    "restarts": 0,
    "uptime_s": 18.869,
    "pid": 7939,
    "in_flight": 0,
    "nodes": {
        "alive": 1,
        "names": ["head"],
        "gone": [],
        "list": [
            {
                "node_id": "94612dc52ff7550d0005b01cdf089dca9d9da0679a47a9057ea72e18",
                "node_name": "head",
                "alive": True,
                "draining": False,
                "head": True,
            }
        ],
        "age_s": 3.5,
    },
    "organs": [_ORGAN],
}
_STARTING = {
    **_HEALTHY,
    "status": "initializing",
    "reason": Reason.STARTING.value,
    "remedy": Reason.STARTING.remedy,
    "message": "0 of 1 organs ready; starting: cognitive_organ_1",
    "organism_initialized": False,
    "coordinator": "unavailable",
    "init_seconds": None,
    "organs": [],
}
_DOWN = {
    **_HEALTHY,
    "status": "unhealthy",
    "reason": Reason.ORGANS_DOWN.value,
    "remedy": Reason.ORGANS_DOWN.remedy,
    "message": "cognitive_organ_1: 0 of 2 agents ready (its report is overdue)",
    "coordinator": "error",
    "error": "cognitive_organ_1: 0 of 2 agents ready (its report is overdue)",
    "organs": [],
}
STATUS = {200: {"healthy": _HEALTHY}, 503: {"initializing": _STARTING, "unhealthy": _DOWN}}
READY = {
    200: {"healthy": {"ready": True, "status": "healthy"}},
    503: {"initializing": {"ready": False, "status": "initializing"}},
}
ALIVE = {200: {"alive": {"alive": True}}}
ORGANISM = {
    200: {
        "one organ": [
            {
                **_ORGAN,
                "description": "Reads texts and says what they are about",
                "agent_ids": ["cognitive_organ_1_agent_0", "cognitive_organ_1_agent_1"],
                "task_types": ["keywords", "summarize"],
            }
        ]
    }
}
ACTIVITY = {
    200: {
        "two intervals": {
            "now": 1795555924.024,
            "interval_s": 2.0,
            "samples": {
                "at": [1795555920.007, 1795555922.014],
                "done_per_s": [0.498, 12.0],
                "failed_per_s": [0.0, 0.5],
                "p50_s": [0.004997, 0.0041],
                "p95_s": [0.004997, 0.0183],
                "in_flight": [1, 4],
                "queued": [0, 2],
            },
            "organs": [
                {
                    "organ_id": "cognitive_organ_1",
                    "done": 25,
                    "failed": 1,
                    "per_s": 6.5,
                    "failed_per_s": 0.25,
                    "mean_s": 0.0052,
                }
            ],
            "failures": [
                {
                    "kind": "task",
                    "error": "params key 'text' has to be a string, not NoneType",
                    "task_type": "keywords",
                    "organ_id": "cognitive_organ_1",
                    "agent_id": "cognitive_organ_1_agent_0",
                    "error_type": "BadTaskError",
                    "first_at": 1795555922.1,
                    "at": 1795555922.1,
                    "count": 1,
                }
            ],
        }
    }
}
TASKS_IN = {
    "no params": {"type": "node_facts"},
    "with params": {"type": "echo", "params": {"text": "hi"}, "timeout_s": 5},
    "on one organ": {
        "type": "execute_on_organ",
        "params": {"organ_id": "utility_organ_1", "task_data": {"type": "echo", "params": {"text": "hi"}}},
        "timeout_s": 5,
    },
}


def _failed(
    error: str, error_type: str, task_type: str = "unknown", executed: str = "no", **more: Any
) -> dict[str, Any]:
    failed = {"success": False, "error": error, "error_type": error_type, "executed": executed}
    return {**failed, "task_type": task_type, **more}


UNAUTHORIZED = _failed("send the cluster's token as Authorization: Bearer <token>", "Unauthorized")
FORBIDDEN = _failed("the token is wrong", "Forbidden")
_AGENT = {"organ_id": "cognitive_organ_1", "agent_id": "cognitive_organ_1_agent_0"}
TASKS: dict[int, dict[str, Any]] = {
    200: {
        "done": {
            "success": True,
            "result": {"words": 6, "keywords": [{"word": "agents", "count": 2}]},
            **_AGENT,
            "task_type": "keywords",
            "duration_s": 0.000677,
        }
    },
    400: {
        "not JSON": _failed("the body is not JSON: expected value at line 1 column 1", "TaskError"),
        "not a task": _failed("key 'type' is missing, it says what to do", "TaskError"),
    },
    404: {
        "no such type": _failed(
            "no organ takes task type 'nope', known types are: keywords, summarize", "UnknownTaskTypeError", "nope"
        )
    },
    408: {"too slow": _failed("the body did not arrive within 60 s", "TimeoutError")},
    413: {"too large": _failed("the body is larger than the 16777216 bytes allowed", "PayloadTooLargeError")},
    415: {"no JSON": _failed("send the task as Content-Type: application/json, not text/plain", "TaskError")},
    429: {
        "queue full": _failed(
            "1000 tasks are waiting already",
            "OverloadedError",
            "keywords",
            organ_id="cognitive_organ_1",
            retry_after_s=1.0,
        )
    },
    500: {
        "the agent raised": _failed(
            "params key 'text' has to be a string, not NoneType", "BadTaskError", "keywords", "yes", **_AGENT
        )
    },
    503: {
        "initializing": _failed(
            "the organism is initializing: 0 of 1 organs ready; starting: cognitive_organ_1",
            "OrganUnavailableError",
            "keywords",
        ),
        "its process died": _failed(
            "the process of organ cognitive_organ_1 (replica 0) died with the task",
            "OrganUnavailableError",
            "keywords",
            "unknown",
        ),
    },
    504: {"too long": _failed("no answer within 60 s", "TimeoutError", "keywords", "unknown", **_AGENT)},
}
