"""Test what an operator does on the page, in a real browser: each order shows its command, asks once, and is done."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Open, open_as_reader
from tests.conftest import Organism
from tests.support.ray_head import RayHead
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def operated(head: RayHead, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Organism]:
    """Provide an organism with an inbox, in which a task is parked and others have failed."""
    scope = replace(head.scope("operated"), inbox="sqlite")
    deployment = Organism(head, scope, tmp_path_factory.mktemp("operated"))
    try:
        deployment.up(
            {"id": "pay", "agent": "helpers:echo", "agent_count": 2, "replicas": 2, "task_types": ["echo"]},
            {"id": "rough", "agent": "helpers:Hostile", "task_types": ["hostile"], "required": False},
        )
        for key in ("a", "b", "c"):
            deployment.submit("hostile", {"do": "raise"}, "--durable", "--key", key, "--wait")
        deployment.submit("hostile", {"do": "die"}, "--durable", "--key", "d", "--wait")
        eventually(lambda: deployment.probe().healthy, what="the process that has died is back")
        yield deployment
    finally:
        deployment.close()


def card(page: Page, organ: str) -> Locator:
    return page.locator(f"li.organ[data-organ={organ}]")


def order(page: Page, name: str, command: str, *, exact: bool = True) -> Locator:
    """Press a button, check the command that it shows, and confirm; return the dialog with the answer."""
    page.get_by_role("button", name=name, exact=exact).click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("#order-command")).to_have_text(command)
    dialog.locator("#order-do").click()
    expect(dialog.get_by_role("status")).to_have_text("Done.")
    return dialog


def close(page: Page) -> None:
    page.get_by_role("dialog").get_by_role("button", name="Close").click()
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_an_organ_is_paused_and_resumed(operated: Organism, open_page: Open) -> None:
    page = open_page(operated)
    expect(card(page, "pay")).to_contain_text("ready")

    # A click alone does nothing.
    page.get_by_role("button", name="Pause pay").click()
    dialog = page.get_by_role("dialog", name="Pause pay?")
    expect(dialog).to_contain_text("It begins no task until it is resumed.")
    assert Axe().run(page).response["violations"] == []
    dialog.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("button", name="Pause pay")).to_be_focused()
    assert operated.told()["organs"][0]["paused"] is None

    dialog = order(page, "Pause pay", "seedcore pause pay")
    answer = json.loads(dialog.get_by_role("group", name="Answer").inner_text())
    assert (answer["organ_id"], answer["paused"]["by"]) == ("pay", "cluster")
    close(page)
    expect(page.locator("#status")).to_have_text("unhealthy")
    expect(page.locator("#message")).to_contain_text("organs_paused: pay is paused by 'cluster'")
    expect(card(page, "pay")).to_contain_text("Paused by cluster since")
    waits = operated.start("submit", "echo")
    # It has nothing to print while its organ is paused.
    time.sleep(2)
    assert waits.poll() is None

    order(page, "Resume pay", "seedcore resume pay")
    close(page)
    expect(page.locator("#status")).to_have_text("healthy")
    out, _ = waits.communicate(timeout=60)
    assert json.loads(out)["success"] is True


def test_a_process_is_replaced_and_processes_are_spread(operated: Organism, open_page: Open) -> None:
    page = open_page(operated)
    before = [one["pid"] for one in operated.told()["organs"][0]["replicas"]]
    dialog = order(page, "Replace pay/1", "seedcore replace pay/1")
    pid = json.loads(dialog.locator("#order-answer").inner_text())["pid"]
    close(page)
    assert [one["pid"] for one in operated.told()["organs"][0]["replicas"]] == [before[0], pid]
    dialog = order(page, "Rebalance", "seedcore rebalance")
    assert json.loads(dialog.locator("#order-answer").inner_text()) == {"plan": [], "moved": [], "error": ""}


def test_a_node_is_drained_and_what_is_left_there_is_said(operated: Organism, open_page: Open) -> None:
    page = open_page(operated)
    nodes = page.get_by_role("list", name="Nodes", exact=True)
    order(page, "Drain head", "seedcore drain head")
    close(page)
    expect(nodes).to_contain_text("drained by cluster, 3 processes left")
    expect(nodes.get_by_role("listitem")).to_have_attribute("title", re.compile("no other node can hold it"))
    order(page, "Undrain head", "seedcore undrain head")
    close(page)
    expect(nodes).not_to_contain_text("drained")


def test_durable_tasks_are_shown_with_their_cause_and_decided(operated: Organism, open_page: Open) -> None:
    page = open_page(operated)
    inbox = page.get_by_role("region", name="Durable tasks")
    expect(inbox).to_contain_text(re.compile(r"To be decided\s*4"))
    expect(inbox).to_contain_text(re.compile(r"Waiting\s*0\s*Running\s*0"))
    rows = inbox.locator("tbody tr")
    expect(rows).to_have_count(4)
    parked, failed = rows.filter(has_text="parked"), rows.filter(has_text="failed").first
    expect(parked).to_contain_text("unknown")
    expect(parked).to_contain_text("died with the task")
    expect(failed).to_contain_text("ValueError: a plain failure")
    task_id = parked.get_by_role("rowheader").inner_text()
    other_id = failed.get_by_role("rowheader").inner_text()

    dialog = order(page, f"Done {task_id}", f"seedcore task done {task_id}")
    assert json.loads(dialog.locator("#order-answer").inner_text())["state"] == "done"
    close(page)
    order(page, f"Discard {other_id}", f"seedcore task discard {other_id}")
    close(page)
    expect(rows).to_have_count(2)
    last_id = rows.first.get_by_role("rowheader").inner_text()
    order(page, f"Retry {last_id}", f"seedcore task retry {last_id}")
    close(page)

    def failed_again() -> bool:
        shown = json.loads(operated.run("task", "show", last_id).stdout)
        return bool(shown["attempt"] == 2 and shown["state"] == "failed")

    eventually(failed_again, what="the second attempt")


def test_an_order_that_is_refused_says_why(operated: Organism, open_page: Open) -> None:
    page = open_page(operated)
    page.get_by_role("button", name="Pause pay").click()
    page.evaluate("ordered.of = 'nothing'")
    dialog = page.get_by_role("dialog")
    dialog.locator("#order-do").click()
    expect(dialog.get_by_role("alert")).to_have_text("Not done: there is no organ 'nothing', organs are: pay, rough")
    expect(dialog.get_by_role("button")).to_have_text(["Close"])


def test_a_token_that_may_not_operate_is_offered_nothing(operated: Organism, open_page: Open) -> None:
    page = open_as_reader(open_page, operated)
    expect(card(page, "pay")).to_contain_text("ready")
    expect(page.get_by_role("region", name="Durable tasks").locator("tbody tr")).not_to_have_count(0)
    expect(page.get_by_role("button")).to_have_text(["Forget the token"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_of_it_is_in_the_way_of_anybody(operated: Organism, open_page: Open, scheme: str) -> None:
    page = open_page(operated, color_scheme=scheme, viewport={"width": 320, "height": 640})
    expect(card(page, "pay")).to_contain_text("ready")
    expect(page.get_by_role("region", name="Durable tasks")).to_be_visible()
    assert Axe().run(page).response["violations"] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    page.get_by_role("button", name="Drain head").click()
    assert Axe().run(page).response["violations"] == []


def test_the_keyboard_stays_on_a_button_while_the_page_is_renewed(operated: Organism, open_page: Open) -> None:
    page = open_page(operated)
    button = page.get_by_role("button", name="Pause rough")
    button.focus()
    before = button.element_handle()
    assert before is not None
    operated.submit("hostile", {"do": "raise"})
    # The card has other figures now, so it was made anew.
    eventually(lambda: not before.evaluate("element => element.isConnected"), what="an update")
    expect(button).to_be_focused()
