"""Test which nodes count as silent, as a table, and the request to a node's agent."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable

import pytest

from seedcore.coordinator.node_silence import NodeSilence, agent_answers

LIMIT_S = 15.0
NODES = ("a", "b")


class Watch:
    """Advances the time by seconds, in each of which some processes report and some agents answer."""

    def __init__(self) -> None:
        self.silence = NodeSilence()
        self.now = 100.0
        self.silence.step(self.now, used=NODES, reported=NODES)

    def passes(
        self, seconds: int, *, reporting: Iterable[str] = (), answering: Iterable[str] = (), silent: Iterable[str] = ()
    ) -> None:
        for _ in range(seconds):
            self.now += 1.0
            self.silence.step(self.now, used=NODES, reported=reporting)
            self.silence.asked(answered=answering, unanswered=silent)

    def lost(self) -> list[str]:
        return [node for node in NODES if self.silence.is_lost(node, LIMIT_S)]


def test_a_node_that_is_silent_with_its_processes_is_lost_in_time() -> None:
    watch = Watch()
    watch.passes(14, reporting="b", answering="b", silent="a")
    assert (watch.lost(), set(watch.silence.silent)) == ([], {"a"})
    watch.passes(1, reporting="b", answering="b", silent="a")
    assert watch.lost() == ["a"]


def test_one_sign_of_life_is_enough() -> None:
    for sign in ("reporting", "answering"):
        watch = Watch()
        watch.passes(14, answering="b", silent="a")
        watch.passes(1, **{"answering": "b", "silent": "a", sign: "ab"})
        watch.passes(14, answering="b", silent="a")
        assert watch.lost() == [], sign


def test_a_process_that_hangs_on_a_node_that_answers_is_no_matter_of_its_node() -> None:
    watch = Watch()
    watch.passes(600, answering="ab")
    assert (watch.lost(), watch.silence.silent) == ([], frozenset())


def test_who_cannot_ask_gives_nobody_up() -> None:
    watch = Watch()
    watch.passes(600)
    assert watch.lost() == []


def test_who_hears_nobody_at_all_is_cut_off_himself() -> None:
    watch = Watch()
    watch.passes(600, silent="ab")
    assert watch.lost() == []
    watch.passes(1, answering="b", silent="a")
    assert watch.lost() == ["a"]


def test_a_node_that_ray_has_not_given_up_in_its_time_is_not_the_silent_one() -> None:
    watch = Watch()
    watch.passes(89, silent="ab")
    assert watch.silence.silent == {"a", "b"}
    watch.passes(1, silent="ab")
    assert watch.silence.silent == frozenset()


def test_the_only_other_node_is_given_up() -> None:
    watch = Watch()
    watch.passes(15, silent="a", reporting="b")
    assert watch.lost() == ["a"]


def test_a_watcher_that_stood_still_finds_nobody_silent() -> None:
    watch = Watch()
    watch.now += 600.0
    watch.passes(1, answering="b", silent="a")
    assert watch.lost() == []
    watch.passes(12, answering="b", silent="a")
    assert watch.lost() == ["a"], "a step counts for three seconds at most"


def test_a_lost_node_stays_silent_after_everything_has_left_it_until_it_answers() -> None:
    silence = NodeSilence()
    silence.step(0.0, used=NODES, reported=NODES)
    for second in range(1, 40):
        silence.step(float(second), used=NODES if second < 16 else ("b",), reported="b")
        silence.asked(answered="b", unanswered="a")
    assert silence.silent == {"a"}
    assert silence.has_suspects
    silence.asked(answered="ab", unanswered="")
    silence.step(41.0, used=("b",), reported="b")
    assert (silence.silent, silence.has_suspects) == (frozenset(), False)


@pytest.mark.parametrize("agent", ["answers", "refuses", "accepts and is silent", "closes at once"])
def test_only_what_an_agent_says_is_a_sign_of_life(agent: str) -> None:
    async def ask() -> bool:
        async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if agent == "answers":
                writer.write(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
            writer.close()

        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            if agent == "accepts and is silent":
                # The kernel accepts the connection while the process is suspended.
                return await agent_answers("127.0.0.1", port, timeout_s=0.1)
            listener.close()
            if agent == "refuses":
                return await agent_answers("127.0.0.1", port, timeout_s=5)
            async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
                port = server.sockets[0].getsockname()[1]
                return await agent_answers("127.0.0.1", port, timeout_s=5)

    assert asyncio.run(ask()) is (agent == "answers")


def test_a_node_that_is_back_may_not_be_reached_on_old_connections_for_as_long_again() -> None:
    watch = Watch()
    watch.passes(6, reporting="b", answering="b", silent="a")
    watch.passes(1, reporting="b", answering="ab")
    assert watch.silence.silent == frozenset()
    assert watch.silence.unreachable == {"a"}
    watch.passes(9, reporting="b", answering="ab")
    assert watch.silence.unreachable == {"a"}
    watch.passes(1, reporting="b", answering="ab")
    assert watch.silence.unreachable == frozenset()


def test_a_node_that_always_answered_is_reached_at_once() -> None:
    watch = Watch()
    watch.passes(6, reporting="b", answering="ab")
    assert watch.silence.unreachable == frozenset()


def test_a_node_whose_agent_is_always_slow_may_not_be_out_of_reach_for_ever() -> None:
    watch = Watch()
    reached = 0
    for _ in range(20):
        # Its process hangs, and the agent answers each request slowly.
        watch.passes(4, reporting="b", answering="b")
        watch.passes(1, reporting="b", answering="ab")
        reached += "a" not in watch.silence.unreachable
    assert reached >= 10
