"""The documentation: it is up to date, its links lead somewhere, and it knows every reason."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import reference

ROOT = Path(__file__).parents[2]
# Every way in which the code gives a reason.
GIVEN = re.compile(
    r"""(?:\breason ?= ?|"reason": |bad\(report, |report_of\([A-Z]+, |unhealthy\(|return "[a-z]+", )["']([a-z_]+)["']"""
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.replace("`", "")).strip().lower().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("name", reference.PAGES)
def test_the_reference_is_what_the_code_says(name: str) -> None:
    assert (reference.REFERENCE / name).read_text() == reference.PAGES[name](), (
        "run `make docs` and commit what it writes"
    )


def test_every_reason_has_a_section() -> None:
    sources = [*(ROOT / "seedcore").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]
    reasons = {reason for path in sources for reason in GIVEN.findall(path.read_text())}

    assert {"absent", "organs_down", "not_responding", "wrong_configuration", "wrong_release"} <= reasons
    assert reasons - {"unknown"} <= anchors(ROOT / "docs" / "status.md")


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "molecule" / "README.md"], ids=str
)
def test_links_from_the_checkout_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        path, _, anchor = link.partition("#")
        if not link.startswith("http"):
            target = page.parent / path if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_the_site_can_be_built_and_has_no_dead_link(tmp_path: Path) -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "status.html").read_text()
    assert 'id="organs_down"' in page
    assert not re.findall(r'(?:src|href)="https?://(?!www\.mkdocs\.org|squidfunk)[^"]*\.(?:js|css|woff2?)"', page)
