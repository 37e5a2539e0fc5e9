"""Test the status page in a real browser, with a real Coordinator and real faults."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.conftest import WITHIN_MS, Open, open_as_reader, organs
from tests.conftest import Organism
from tests.support.processes import kill
from tests.support.ray_head import RayHead
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(400)

# Rules of WCAG 2.2, levels A and AA, and axe-core's best practices.
_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
_RULES = {"runOnly": {"type": "tag", "values": _TAGS}}


@pytest.fixture
def coming(head: RayHead, tmp_path: Path) -> Iterator[Organism]:
    """Provide a namespace in which nothing runs yet."""
    deployment = Organism(head, head.scope("coming"), tmp_path)
    try:
        yield deployment
    finally:
        deployment.close()


def word(page: Page, text: str) -> None:
    expect(page.locator("#status")).to_have_text(text)


def accessible(page: Page) -> None:
    found = Axe().run(page, options=_RULES).response["violations"]
    assert found == [], json.dumps(found, indent=1)[:4000]


def part(page: Page, name: str) -> str:
    return page.get_by_role("region", name=name).inner_text()


def test_the_token_is_asked_for_once_and_stays_out_of_addresses(living: Organism, open_page: Open) -> None:
    token = living.settings.token() or ""
    page = open_page(living, token=False)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    expect(page.get_by_label("Token of the cluster")).to_be_focused()
    expect(page.get_by_role("region", name="Organism")).to_be_hidden()
    accessible(page)

    page.keyboard.type("wrong-token")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert").get_by_text("That token is wrong.")).to_be_visible()
    page.keyboard.type(token)
    page.keyboard.press("Enter")
    word(page, "healthy")
    page.reload()
    word(page, "healthy")

    assert page.get_by_label("Token of the cluster").is_hidden()
    assert token not in page.url
    assert token not in page.content()
    assert asked
    assert not [url for url in asked if token in url]
    # The page loads nothing from other hosts, so it works without any other network.
    assert {urlsplit(url).netloc for url in asked if not url.startswith("data:")} == {
        urlsplit(living.settings.http_url).netloc
    }

    page.get_by_role("button", name="Forget the token").click()
    expect(page.get_by_label("Token of the cluster")).to_be_visible()


def test_a_glance_says_how_it_is_since_when_and_where(living: Organism, open_page: Open) -> None:
    page = open_page(living)
    word(page, "healthy")

    overall = part(page, "Overall state")
    assert re.search(r"Since .+, for \d+ (s|min)", overall)
    assert "2 of 2 organs ready, all agents ready" in overall
    assert re.search(r"Agents ready\s+5 of 5", overall)
    assert re.search(r"Nodes alive\s+1", overall)
    assert f"Release\n{living.probe().coordinator['release']}" in overall
    assert page.title() == "healthy - SeedCore"
    nodes = page.get_by_role("list", name="Nodes", exact=True)
    expect(nodes.get_by_role("listitem")).to_have_text(["headhead, aliveDrain"])
    organs = page.get_by_role("list", name="Organs").locator("> li")
    expect(organs).to_have_count(2)
    expect(organs.nth(0).get_by_role("heading")).to_contain_text("thinker")
    processes = organs.nth(0).get_by_role("list", name="Processes on head").get_by_role("listitem")
    expect(processes).to_have_text(["Process 0: ready, 2 of 2 agents ready", "Process 1: ready, 2 of 2 agents ready"])
    expect(page.get_by_text("optional")).to_be_visible()


def test_rates_durations_and_failures_show_up_without_a_reload(living: Organism, open_page: Open) -> None:
    page = open_page(living)
    word(page, "healthy")
    rates = page.get_by_role("img", name=re.compile("^Tasks per second"))
    page.evaluate("window.sameDocument = true")

    def seen() -> bool:
        assert living.submit("echo")["success"] is True
        assert living.submit("hostile", {"do": "raise"})["success"] is False
        return re.search(r"done 0?\.?[1-9]", rates.get_attribute("aria-label") or "") is not None

    eventually(seen, what="a rate in the plot")
    failure = page.get_by_role("region", name="Last failures").get_by_role("listitem").first
    expect(failure).to_contain_text("rough_agent_0")
    expect(failure).to_contain_text("ValueError: a plain failure")
    assert re.search(r"\d+ (m?s|\u00b5s)", page.get_by_text("median").inner_text())
    assert (page.locator(".chart path.first").first.get_attribute("d") or "").startswith("M")
    assert page.evaluate("window.sameDocument") is True


def test_it_can_be_used_with_the_keyboard_alone(living: Organism, open_page: Open) -> None:
    # With this token, no order is offered.
    page = open_as_reader(open_page, living)
    word(page, "healthy")
    page.reload()
    word(page, "healthy")
    names = []
    for _ in range(5):
        page.keyboard.press("Tab")
        names.append(
            page.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.innerText")
        )

    assert [re.split("[,(]", name)[0] for name in names] == [
        "HTTP interface",
        "Tasks per second",
        "Duration of tasks",
        "Load",
        "Forget the token",
    ]
    load = page.get_by_role("img", name=re.compile("^Load"))
    load.focus()
    assert ", now: " in (load.get_attribute("aria-label") or "")
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    expect(load).to_have_attribute("aria-label", re.compile(r"\d+ seconds ago"))
    page.keyboard.press("Escape")
    expect(load).to_have_attribute("aria-label", re.compile(", now: "))
    outline = load.evaluate("element => getComputedStyle(element).outlineStyle")
    assert outline == "solid"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["/", "/docs"])
def test_nothing_is_in_the_way_of_anybody(living: Organism, open_page: Open, scheme: str, path: str) -> None:
    page = open_page(living, path, color_scheme=scheme, viewport={"width": 320, "height": 640})
    expect(page.get_by_role("heading", level=2).nth(2)).to_be_visible()

    accessible(page)
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 320, f"{path} is {width} px wide"
    page.set_viewport_size({"width": 1200, "height": 900})
    accessible(page)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 200) is (scheme == "dark")


def test_its_start_can_be_watched(coming: Organism, open_page: Open) -> None:
    lock = coming.directory / "lock"
    lock.touch()
    slow = {"id": "slow", "agent": "helpers:StartsWhenFileIsGone", "agent_count": 1, "options": {"path": str(lock)}}
    bootstrap = coming.start(
        "bootstrap", "--wait-timeout", "240", "--config", str(coming.config({"id": "quick"}, slow))
    )
    eventually(lambda: coming.probe().coordinator.get("stage"), timeout_s=200, what="its HTTP server")
    page = open_page(coming)

    word(page, "initializing")
    expect(page.locator("#message")).to_have_text(re.compile("1 of 2 organs ready; starting: slow"))
    bar = page.get_by_role("progressbar", name="Agents ready")
    expect(bar).to_have_attribute("aria-valuenow", "1")
    expect(bar).to_have_attribute("aria-valuemax", "2")
    expect(page.get_by_text("Process 0: starting, 0 of 1 agents ready")).to_have_count(1)
    accessible(page)
    lock.unlink()
    word(page, "healthy")
    expect(bar).to_be_hidden()
    bootstrap.communicate(timeout=60)
    assert bootstrap.returncode == 0


def test_what_is_missing_is_named_with_its_cause(coming: Organism, open_page: Open) -> None:
    lock = coming.directory / "lock"
    lock.touch()
    flaky = {"id": "flaky", "agent": "helpers:FailsWhileFileExists", "options": {"path": str(lock)}, "required": False}
    coming.run("bootstrap", "--config", str(coming.config({"id": "sound"}, flaky)))
    page = open_page(coming)

    word(page, "degraded")
    expect(page.locator("#message")).to_contain_text("flaky: 0 of 1 agents ready")
    expect(page.get_by_role("list", name="Organs")).to_contain_text("the database is locked by lock")
    expect(page.get_by_text("Process 0: down, 0 of 1 agents ready")).to_have_count(1)
    accessible(page)
    lock.unlink()
    word(page, "healthy")


def test_a_killed_organ_is_seen_and_remembered(living: Organism, open_page: Open) -> None:
    # No new process starts while the file exists: otherwise the page might miss the outage.
    lock = living.directory / "lock"
    page = open_page(living)
    word(page, "healthy")
    lock.touch()

    kill(living.probe().coordinator["organs"][0]["replicas"][1]["pid"])

    word(page, "unhealthy")
    expect(page.locator("#message")).to_contain_text("organs_down: thinker: 2 of 4 agents ready")
    expect(page.get_by_text(re.compile("Process 1: (down|starting)"))).to_have_count(1)
    assert re.search(r"Agents ready\s+3 of 5", part(page, "Overall state"))
    expect(page.locator("#overall .shape use")).to_have_attribute("href", "#shape-bad")
    lock.unlink()
    word(page, "healthy")
    failures = page.get_by_role("region", name="Last failures")
    expect(failures).to_contain_text("thinker \u00b7 process 1")
    expect(page.get_by_text(re.compile("Process 1: ready.*replaced 1 times"))).to_have_count(1)


def test_a_coordinator_that_hangs_makes_the_page_stale_until_it_is_back(living: Organism, open_page: Open) -> None:
    page = open_page(living)
    word(page, "healthy")
    pid = living.probe().coordinator["pid"]

    kill(pid, signal.SIGSTOP)
    try:
        word(page, "no answer")
        stale = part(page, "Overall state")
        assert re.search(r"No answer since .+, for \d+ s", stale)
        assert re.search(r"Stale: the last known status, at .+, was healthy", stale)
        assert "it did not answer within 5 s" in page.get_by_role("alert").all_inner_texts()[-1]
        expect(page.locator("#updated")).to_have_text(re.compile(r"Stale, last updated .+, \d+ s ago"))
        expect(page.get_by_role("list", name="Organs").locator("> li")).to_have_count(2)
        accessible(page)
    finally:
        kill(pid, signal.SIGCONT)

    word(page, "healthy")
    expect(page.locator("#updated")).to_have_text(re.compile("^Live, updated "))
    expect(page.get_by_role("region", name="Last failures")).to_contain_text("It did not answer this page for")


def test_a_coordinator_that_is_gone_comes_back_without_a_reload(living: Organism, open_page: Open) -> None:
    page = open_page(living)
    word(page, "healthy")
    before = living.probe().coordinator["pid"]

    assert living.run("shutdown").returncode == 0
    word(page, "no answer")
    expect(page.get_by_role("alert").last).to_contain_text("it cannot be reached")
    living.up(*organs(living.directory))

    word(page, "healthy")
    after = living.probe().coordinator["pid"]
    assert after != before
    expect(page.locator("#who")).to_contain_text(f"pid {after}", timeout=WITHIN_MS)


def test_the_docs_page_shows_every_request_with_examples_and_errors(living: Organism, open_page: Open) -> None:
    page = open_page(living, "/docs")
    expect(page.get_by_role("heading", name="POST /coordinator/tasks", exact=True)).to_be_visible()

    with page.expect_response("**/openapi.json") as answer:
        page.reload()
    described = answer.value.json()
    operations = sum(len(methods.keys() & {"get", "post", "put", "delete"}) for methods in described["paths"].values())
    assert operations > 12
    expect(page.locator("h2.path")).to_have_count(operations)
    post = page.locator("section").filter(has=page.get_by_role("heading", name="POST /coordinator/tasks", exact=True))
    expect(post.get_by_text("No organ accepts this type")).to_be_visible()
    example = post.get_by_text("Example of 404: no such type")
    example.click()
    expect(post.get_by_text("no organ accepts task type 'nope'")).to_be_visible()
