"""Fixtures for tests in a real, headless browser: Debian's Chromium, or another installed one."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from seedcore.core.access import Scope, TokenFile
from tests.conftest import Organism
from tests.support.ray_head import RayHead

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
# Containers have neither a sandbox nor a graphics card; the other options stop Chromium from contacting its vendor.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WITHIN_MS = 60_000
Open = Callable[..., Page]


def organs(directory: Path) -> list[dict[str, Any]]:
    """Return two organs; a restarted process of the first comes up only if there is no file ``lock``."""
    slow = {"agent": "helpers:StartsWhenFileIsGone", "options": {"path": str(directory / "lock")}}
    return [
        {"id": "thinker", "type": "Cognitive", "agent_count": 4, "replicas": 2, "task_types": ["echo"], **slow},
        {"id": "rough", "type": "Test", "agent": "helpers:Hostile", "task_types": ["hostile"], "required": False},
    ]


def program() -> str | None:
    """Return the path of the browser, or None."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = program()
    if path is None:
        pytest.skip("there is no Chromium")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def living(head: RayHead, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Organism]:
    """Provide a healthy organism that the module's tests share."""
    deployment = Organism(head, head.scope("page"), tmp_path_factory.mktemp("page"))
    try:
        deployment.up(*organs(deployment.directory))
        yield deployment
    finally:
        deployment.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Provide a function that opens a Coordinator's page in a new tab and enters the token; options go to the tab."""
    expect.set_options(timeout=WITHIN_MS)
    contexts = []

    def open_one(deployment: Organism, path: str = "/", *, token: bool = True, **options: object) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        context.set_default_timeout(WITHIN_MS)
        page.goto(deployment.settings.http_url + path)
        if token:
            page.get_by_label("Token of the cluster").fill(deployment.settings.token() or "")
            page.keyboard.press("Enter")
        pages.append((page, faults))
        return page

    pages: list[tuple[Page, list[str]]] = []
    yield open_one
    for context in contexts:
        context.close()
    assert [fault for _, faults in pages for fault in faults] == []


def open_as_reader(open_page: Open, deployment: Organism) -> Page:
    """Open the page with a token that may only read."""
    token = TokenFile(deployment.settings.state_dir).add("reader", Scope.READ, now=time.time())
    time.sleep(1.5)  # the Coordinator reads the file each second
    page = open_page(deployment, token=False)
    page.get_by_label("Token of the cluster").fill(token)
    page.keyboard.press("Enter")
    return page
