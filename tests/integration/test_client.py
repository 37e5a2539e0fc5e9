"""Test the client with a real organism, over HTTP and directly, during kills, hangs, overload and replacements."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from seedcore import Client
from seedcore.core.errors import ClusterError
from tests.conftest import Organism

LEDGER = {"id": "ledger", "agent": "ledger:Ledger", "task_types": ["note"], "agent_count": 4, "max_concurrency": 25}
CALM = {"id": "calm", "task_types": ["calm"], "replicas": 2, "agent_count": 2}
NAPS = {"id": "naps", "agent": "seedcore.agents:utility", "task_types": ["sleep"], "max_concurrency": 50}

# A driver that has joined Ray, with a client and functions that act on the organism's processes.
DRIVER = """
import asyncio, signal, subprocess, sys, threading
import seedcore
client = ending.enter_context(seedcore.Client())
assert client.transport == "ray"

def pids(organ_id):
    (organ,) = [organ for organ in client.status()["organs"] if organ["organ_id"] == organ_id]
    return [replica["pid"] for replica in organ["replicas"]]

def until(check, what, seconds=60):
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, what
        time.sleep(0.05)

def timed(function, *arguments, **keywords):
    began = time.monotonic()
    answer = function(*arguments, **keywords)
    return {"answer": answer, "seconds": time.monotonic() - began}
"""


def drive(organism: Organism, code: str) -> Any:
    return organism.drive(DRIVER + code)


def ledger(directory: Path, **more: Any) -> dict[str, Any]:
    return {**LEDGER, "options": {"path": str(directory / "ledger.txt")}, **more}


def noted(directory: Path) -> Counter[int]:
    return Counter(int(line) for line in (directory / "ledger.txt").read_text().splitlines())


def test_a_process_that_has_not_joined_ray_asks_over_http(shared: Organism) -> None:
    shared.up(CALM, NAPS)
    code = """
import json, sys, seedcore
with seedcore.Client() as client:
    tasks = ({"type": "calm", "params": {"n": n}} for n in range(700))
    many = client.submit_many([*tasks, {"type": "no such type"}, {"type": "calm", "params": {"bad": object()}}])
    alone = client.submit({"type": "sleep", "params": {"seconds": 60}}, timeout_s=0.2)
    print(json.dumps([client.transport, client.ping(), client.status()["status"], many, alone, "ray" in sys.modules]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=shared.head.env(shared.settings),
        capture_output=True,
        timeout=100,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    transport, pong, status, many, alone, has_ray = json.loads(done.stdout)

    assert (transport, pong, status, has_ray) == ("http", "pong", "healthy", False)
    assert [answer["result"]["echo"] for answer in many[:700]] == [{"n": n} for n in range(700)]
    assert [(answer["error_type"], answer["executed"]) for answer in many[700:]] == [
        ("UnknownTaskTypeError", "no"),
        ("TaskError", "no"),
    ]
    assert (alone["error_type"], alone["executed"]) == ("TimeoutError", "unknown")


def test_without_a_coordinator_every_answer_says_so_and_nothing_waits_for_ever(organism: Organism) -> None:
    with Client(organism.settings, transport="http") as client:
        answer = client.submit({"type": "calm"}, timeout_s=1)
        assert (answer["success"], answer["error_type"], answer["executed"]) == (False, "OrganUnavailableError", "no")
        with pytest.raises(ClusterError) as caught:
            client.status(timeout_s=5)
        assert caught.value.reason == "absent"
    with pytest.raises(ClusterError, match="has not joined Ray"):
        Client(organism.settings, transport="ray")
    answer = drive(organism, 'say([client.submit({"type": "calm"}), client.submit({"type": "get_metrics"})])')
    assert [(entry["error_type"], entry["executed"]) for entry in answer] == [("ClusterError", "no")] * 2


def test_many_tasks_keep_their_order_stream_and_tell_each_its_own_outcome(shared: Organism) -> None:
    # An organ without other senders, because its tasks are counted below.
    shared.up({**CALM, "id": "many"}, NAPS)

    seen = drive(
        shared,
        """
small = ending.enter_context(seedcore.Client(max_in_flight=100))
taken, most, order = 0, 0, []
def tasks():
    global taken
    for n in range(5000):
        taken += 1
        yield {"type": "calm", "params": {"n": n}}
for done, answer in enumerate(small.map(tasks())):
    most = max(most, taken - done)
    order.append(answer["result"]["echo"]["n"])
mixed = client.submit_many([{"type": "calm"}, None, {"type": "calm", "params": {"lock": threading.Lock()}},
                            {"type": "nobody"}, {"type": "sleep", "params": {"seconds": -1}}, {"type": "calm"}])
first = next(client.map({"type": "calm", "params": {"n": n}} for n in iter(int, 1)))
pids_used = set()
def spread():
    # On a busy machine the report of a process may be late, and it gets no tasks for a moment.
    pids_used.update(answer["result"]["pid"] for answer in client.submit_many([{"type": "calm"}] * 400))
    return len(pids_used) == 2
until(spread, "tasks in both processes")
async def beside():
    async with seedcore.AsyncClient() as other:
        slow = asyncio.create_task(other.submit({"type": "sleep", "params": {"seconds": 30}}))
        await asyncio.sleep(0)
        began = time.monotonic()
        quick = await asyncio.gather(*(other.submit({"type": "sleep", "params": {"seconds": 0}}) for _ in range(40)))
        seconds, waits = time.monotonic() - began, not slow.done()
        slow.cancel()
        async def source():
            for n in range(300):
                yield {"type": "calm", "params": {"n": n}}
        order = [answer["result"]["echo"]["n"] async for answer in other.map(source())]
        return {"all": all(answer["success"] for answer in quick), "seconds": seconds, "waits": waits, "order": order,
                "ping": await other.ping(), "status": (await other.status())["status"]}
def counted(organ_id="many", key="tasks"):
    (organ,) = [organ for organ in client.submit({"type": "get_metrics"})["result"]["organs"]
                if organ["organ_id"] == organ_id]
    return organ[key] if key != "tasks" else sum(
        entry["count"] for entry in organ["tasks"] if entry["outcome"] == "success")
# What does not come through the Coordinator, the organs count: their report is a health interval old at most.
seen = {"order": order, "most": most, "mixed": mixed, "first": first["success"], "pids": len(pids_used),
        "beside": asyncio.run(beside())}
closing, left = seedcore.Client(), []
nap = {"type": "sleep", "params": {"seconds": 60}}
waiting = threading.Thread(target=lambda: left.extend(closing.submit_many([nap] * 3)), daemon=True)
waiting.start()
until(lambda: counted("naps", "in_flight") >= 3, "three naps")
closing.close()
waiting.join(20)
seen["closed"] = [[answer["error_type"], answer["executed"]] for answer in left]
until(lambda: counted() >= 5000 + 400 + 300, "the organs' own counts")
say(seen)
""",
    )

    assert seen["order"] == list(range(5000))
    assert seen["most"] <= 101
    outcomes = [answer.get("error_type", "done") for answer in seen["mixed"]]
    assert outcomes == ["done", "TaskError", "TaskError", "UnknownTaskTypeError", "BadTaskError", "done"]
    assert [answer.get("executed") for answer in seen["mixed"]] == [None, "no", "no", "no", "yes", None]
    assert seen["first"] is True
    assert seen["pids"] == 2
    beside = seen["beside"]
    assert beside["all"]
    assert beside["waits"]
    assert beside["seconds"] < 15
    assert beside["order"] == list(range(300))
    assert (beside["ping"], beside["status"]) == ("pong", "healthy")
    assert seen["closed"] == [["ClusterError", "unknown"]] * 3


def test_no_task_is_done_twice_while_its_organ_is_killed_again_and_again(organism: Organism, tmp_path: Path) -> None:
    organism.up(ledger(tmp_path, replicas=2))

    answers = drive(
        organism,
        """
def killer():
    for victim in (0, 1, 0):
        time.sleep(1.5)
        try:
            os.kill(pids("ledger")[victim], signal.SIGKILL)
        except (ProcessLookupError, TypeError):
            pass
thread = threading.Thread(target=killer)
thread.start()
answers, n = [], 0
def tasks():
    global n
    while thread.is_alive() or n < 300:
        n += 1
        yield {"type": "note", "params": {"n": n, "seconds": 0.02}}
answers = list(client.map(tasks(), timeout_s=60))
say([answers, n, client.submit({"type": "note", "params": {"n": n + 1}}, timeout_s=60)])
""",
    )
    answers, count, last = answers

    assert len(answers) == count
    times = noted(tmp_path)
    assert max(times.values()) == 1, [n for n, count in times.items() if count > 1]
    for n, answer in enumerate(answers, 1):
        if answer["success"]:
            assert answer["result"]["n"] == n
            assert times[n] == 1
        else:
            assert (answer["error_type"], answer["executed"]) == ("OrganUnavailableError", "unknown"), answer
    assert last["success"]
    lost = sum(not answer["success"] for answer in answers)
    assert lost <= 3 * 1000
    assert lost < count


def test_an_overloaded_organ_is_asked_again_until_everything_is_done_once(shared: Organism, tmp_path: Path) -> None:
    shared.up(ledger(tmp_path, agent_count=1, max_concurrency=1, queue_limit=3))

    answers = drive(
        shared,
        """
others = [ending.enter_context(seedcore.Client()) for _ in range(2)]
clients, found = [client, *others], []
def work(number):
    tasks = [{"type": "note", "params": {"n": 100 * number + i, "seconds": 0.01}} for i in range(40)]
    found.extend(clients[number].submit_many(tasks, timeout_s=90))
threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
full = [client.submit({"type": "note", "params": {"n": 500, "seconds": 5}}, timeout_s=0.3)]
say([found, full])
""",
    )
    found, (full,) = answers

    assert [answer.get("error") for answer in found] == [None] * 120
    times = noted(tmp_path)
    assert max(times.values()) == 1
    assert (full["error_type"], full["executed"]) == ("TimeoutError", "unknown")


def test_a_deadline_holds_through_a_hang_and_over_all_tries(organism: Organism) -> None:
    never = {"id": "never", "agent": "helpers:FailsWhileFileExists", "options": {"path": "/"}, "required": False}
    organs = [CALM, {**NAPS, "health_timeout_s": 30}, {**never, "task_types": ["never"], "start_timeout_s": 1}]
    degraded = organism.run("bootstrap", "--config", str(organism.config(*organs)))
    assert "degraded: never: 0 of 1 agents ready" in degraded.stderr

    seen = drive(
        organism,
        """
client.submit({"type": "sleep", "params": {"seconds": 0}})
(pid,) = pids("naps")
os.kill(pid, signal.SIGSTOP)
nap = {"type": "sleep", "params": {"seconds": 0}}
try:
    seen = {"hung": timed(client.submit, nap, timeout_s=1),
            "hung_many": timed(client.submit_many, [{**nap, "timeout_s": 1}] * 50 + [{"type": "calm"}])}
finally:
    os.kill(pid, signal.SIGCONT)
seen["down"] = timed(client.submit, {"type": "never"}, timeout_s=2)
seen["down_many"] = timed(client.submit_many, [{"type": "never"}] * 20 + [{"type": "calm"}], timeout_s=2)
seen["late"] = timed(client.submit, {"type": "sleep", "params": {"seconds": 30}, "timeout_s": 0.5})
say(seen)
""",
    )

    hung, many = seen["hung"], seen["hung_many"]
    assert (hung["answer"]["error_type"], hung["answer"]["executed"]) == ("TimeoutError", "unknown")
    assert 1 <= hung["seconds"] < 10
    assert {(answer.get("error_type"), answer.get("executed")) for answer in many["answer"][:50]} == {
        ("TimeoutError", "unknown")
    }
    assert many["answer"][50]["success"] is True
    assert many["seconds"] < 15
    for entry in (seen["down"]["answer"], *seen["down_many"]["answer"][:20]):
        assert (entry["error_type"], entry["executed"]) == ("OrganUnavailableError", "no")
        assert "organ never is not ready" in entry["error"]
    assert seen["down_many"]["answer"][20]["success"] is True
    assert seen["down"]["seconds"] < 10
    assert seen["down_many"]["seconds"] < 15
    late = seen["late"]
    assert (late["answer"]["error_type"], late["answer"]["executed"]) == ("TimeoutError", "unknown")
    assert late["seconds"] < 10


def test_the_coordinator_may_hang_die_and_become_another_one_under_a_client(organism: Organism) -> None:
    organism.up(CALM, {"id": "old", "task_types": ["moves"]})
    after = organism.config({**CALM, "replicas": 1}, {"id": "new", "task_types": ["moves"]}, name="after.json")

    seen = drive(
        organism,
        f"""
def works(kind="calm"):
    return client.submit({{"type": kind}}, timeout_s=60)
seen = {{"before": works("moves")["organ_id"]}}
status = client.status()
os.kill(status["pid"], signal.SIGSTOP)
seen["hangs"] = timed(lambda: [works()["success"], works("moves")["organ_id"],
                               all(answer["success"] for answer in client.submit_many([{{"type": "calm"}}] * 100))])
try:
    client.ping(timeout_s=0.5)
except seedcore.core.errors.DeadlineError as error:
    seen["ping"] = str(error)
os.kill(status["pid"], signal.SIGKILL)
seen["metrics"] = client.submit({{"type": "get_metrics"}}, timeout_s=60)["success"]
seen["dead"] = [works()["success"], works("moves")["organ_id"]]
seen["pong"] = client.ping()
answers = []
def stream():
    while not stop.is_set():
        answers.append(works("moves"))
stop = threading.Event()
thread = threading.Thread(target=stream)
thread.start()
done = subprocess.run([sys.executable, "-m", "seedcore", "bootstrap", "--config", {str(after)!r}], capture_output=True,
                      text=True, timeout=100)
seen["bootstrap"] = [done.returncode, done.stderr[-2000:]]
until(lambda: answers and answers[-1].get("organ_id") == "new", "an answer of the new organ")
stop.set()
thread.join()
seen["failed"] = [answer for answer in answers if not answer["success"]]
seen["organs"] = sorted({{str(answer.get("organ_id")) for answer in answers if answer["success"]}})
seen["after"] = [works()["success"], works("moves")["organ_id"], client.ping()]
say(seen)
""",
    )

    assert seen["before"] == "old"
    assert seen["hangs"]["answer"] == [True, "old", True]
    assert "did not answer within 0.5 s" in seen["ping"]
    assert seen["dead"] == [True, "old"]
    assert (seen["metrics"], seen["pong"]) == (True, "pong")
    assert seen["bootstrap"][0] == 0, seen["bootstrap"][1]
    # Only tasks in the old organ when it ended are lost, and their answers report that.
    assert len(seen["failed"]) <= 1
    assert all(answer["executed"] == "unknown" for answer in seen["failed"])
    assert seen["organs"] == ["new", "old"]
    assert seen["after"] == [True, "new", "pong"]


@pytest.mark.parametrize("joined", [False, True])
def test_the_examples_of_the_documentation_run_both_ways(shared: Organism, *, joined: bool) -> None:
    assert shared.run("bootstrap").returncode == 0
    text = (Path(__file__).parents[2] / "docs" / "client.md").read_text()
    blocks = [block.split("```")[0] for block in text.split("```python\n")[1:]]
    join = 'import ray\nray.init(logging_level="ERROR", log_to_driver=False)\n' if joined else ""

    for block in blocks:
        wanted = [line.split("  # ")[1].strip() for line in block.splitlines() if "print(" in line and "  # " in line]
        done = subprocess.run(
            [sys.executable, "-c", join + block],
            env=shared.head.env(shared.settings),
            capture_output=True,
            timeout=100,
            check=False,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        said = done.stdout.splitlines()
        assert [line for line in wanted if line not in said and "{'x': 1} by" not in line] == [], done.stdout
        if "by utility_organ_1_agent_" in block:
            assert "{'x': 1} by utility_organ_1_agent_" in done.stdout
            assert said[-2:] == ["Organs have agents. 3", "Agents do tasks. 3"]
