"""Test that the documentation is up to date, that its links work, and that it covers every reason."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import packages, reference
from seedcore.config.organism_file import PACKAGED_CONFIG
from seedcore.core.reason import Reason
from tests.support.pages import NOT_RUN, PAGES, blocks, blocks_to_run

ROOT = Path(__file__).parents[2]
# The code with which an Ansible module returns its own reason.
GIVEN = re.compile(r"""unhealthy\(["']([a-z_]+)["']""")
# Reasons that are also ordinary words.
NOT_ONLY_REASONS = {"ready", "degraded", "starting", "restarting", "reloading", "unknown"}
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.replace("`", "")).strip().lower().replace(" ", "-") for head in heads}


def test_markup_of_ansible_becomes_markdown() -> None:
    assert reference.prose("RV(extra) of O(main#dest), M(ns.col.x), I(ours), C(f(x)\n y)") == (
        "`extra` of `dest`, `ns.col.x`, *ours*, `f(x) y`"
    )


@pytest.mark.parametrize("name", reference.PAGES)
def test_the_reference_is_what_the_code_says(name: str) -> None:
    assert (reference.REFERENCE / name).read_text() == reference.PAGES[name](), (
        "run `make docs` and commit what it writes"
    )


def test_the_picture_of_the_packages_is_what_the_code_says() -> None:
    assert packages.TARGET.read_text() == packages.picture(), "run `make docs` and commit what it draws"
    for package in (ROOT / "seedcore").iterdir():
        if (package / "__init__.py").exists():
            assert f">{package.name}</text>" in packages.picture()


def test_the_table_of_reasons_is_what_the_code_says() -> None:
    text = reference.STATUS_PAGE.read_text()
    assert text == reference.with_reasons(text), "run `make docs` and commit what it writes"
    assert text.count("](#organs_down) | unhealthy | 1 |") == 1


def test_a_reason_without_a_section_of_its_own_gets_one() -> None:
    text = reference.STATUS_PAGE.read_text()
    before, _, rest = text.partition("## stale\n")
    shorter = before + rest[rest.index("## ") :]

    made = reference.with_reasons(shorter)

    assert made.count("\n## stale\n") == 1
    assert Reason.STALE.remedy in made.partition("\n## stale\n")[2].partition("<!-- end")[0].replace("\n", " ")
    assert reference.with_reasons(made) == made


def test_the_keys_of_the_packaged_file_are_those_that_the_code_has() -> None:
    text = PACKAGED_CONFIG.read_text()
    assert text == reference.with_options(text), "run `make docs` and commit what it writes"


def test_every_reason_has_a_section() -> None:
    sources = (ROOT / "plugins").rglob("*.py")
    of_the_modules = {reason for path in sources for reason in GIVEN.findall(path.read_text())}
    assert {"cli_failed", "usage"} <= of_the_modules

    reasons = {*Reason, *of_the_modules} - {Reason.UNKNOWN, Reason.CLOSED}
    assert {str(reason) for reason in reasons} <= anchors(reference.STATUS_PAGE)


def test_no_reason_is_written_as_text() -> None:
    words = "|".join(set(Reason) - {*NOT_ONLY_REASONS})
    quoted = re.compile(rf"""["'](?:{words})["']""")
    found = {
        str(path.relative_to(ROOT)): names
        for path in (ROOT / "seedcore").rglob("*.py")
        if path.name != "reason.py" and (names := quoted.findall(path.read_text()))
    }
    assert found == {}


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


def test_prose_is_wrapped_so_that_a_diff_shows_the_sentence_that_has_changed() -> None:
    for page in [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        is_code = False
        for number, line in enumerate(page.read_text().splitlines(), 1):
            is_code ^= line.lstrip().startswith("```")
            assert is_code or line.startswith(("|", "![", "    ")) or len(line) <= 100, f"{page}:{number}"


def test_every_block_of_the_first_pages_runs_or_is_listed_with_its_reason() -> None:
    for block in blocks_to_run():
        assert block.script, f"{block.name} has no command"
    every = {(page, block.first_line) for page in PAGES for block in blocks(page)}
    assert NOT_RUN.keys() <= every, "a listed block is no longer on its page"
    assert all(NOT_RUN.values())


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
