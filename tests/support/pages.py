"""Read the code blocks of the documentation, so that tests run them unchanged."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
# In the order in which the blocks run: the first two pages need the packaged organism, the others deploy their own.
PAGES = ("docs/agents.md", "docs/client.md", "README.md", "docs/quickstart.md")
# Blocks that no test runs, by page and first line, with the reason.
NOT_RUN = {
    ("docs/agents.md", '# group_vars/all.yml, or a file for make deploy ARGS="-e @FILE"'): (
        "names packages that do not exist; test_4_gates.py deploys two versions of one package"
    ),
    ("docs/agents.md", "# organism.yaml"): "one organ of the same example",
    ("docs/agents.md", "$ seedcore new my_agents        # my_agents/ with an agent and its test, and organism.yaml"): (
        "`seedcore dev` runs until Ctrl-C on its own Ray; test_dev.py and test_new.py run the two commands"
    ),
    ("README.md", "$ cp -r inventory/sample inventory/mine        # edit the names and addresses"): (
        "needs three hosts with SSH; molecule deploys to such hosts"
    ),
    ("docs/quickstart.md", "$ make teardown"): "test_6_end.py removes this deployment with the same playbook",
}
_BLOCK = re.compile(r"^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE_NAME = re.compile(r"# (\S+\.\w+)$")


@dataclass(frozen=True)
class Block:
    """One fenced block of a page.

    Attributes:
        page: Path of the page, relative to the repository.
        number: Its position on the page, from 1.
        language: The word after the opening fence.
        text: Its content.
    """

    page: str
    number: int
    language: str
    text: str

    @property
    def name(self) -> str:
        """Return the name of this block's test."""
        return f"{Path(self.page).stem}-{self.number}"

    @property
    def first_line(self) -> str:
        """Return the first line, which identifies the block in :data:`NOT_RUN`."""
        return self.text.partition("\n")[0]

    @property
    def file(self) -> str | None:
        """Return the name of the file that the block shows, if its first line is a comment with a file name."""
        found = _FILE_NAME.match(self.first_line)
        return found[1] if found else None

    @property
    def script(self) -> str:
        """Return the block as a shell script; empty for a console session without a command.

        Raises:
            ValueError: Blocks of this language cannot be run.
        """
        if self.file:
            return (
                f"mkdir -p \"$(dirname '{self.file}')\"\ncat > '{self.file}' <<'END OF FILE'\n{self.text}END OF FILE\n"
            )
        if self.language == "console":
            return "".join(f"{line[2:]}\n" for line in self.text.splitlines() if line.startswith("$ "))
        if self.language == "python":
            return f". ~/.local/share/seedcore/bin/activate\npython - <<'END OF FILE'\n{self.text}END OF FILE\n"
        raise ValueError(
            f"block {self.number} of {self.page} is {self.language or 'plain text'!r}, which no test can run"
        )


def blocks(page: str) -> list[Block]:
    """Return the blocks of a page, in order."""
    found = _BLOCK.findall((ROOT / page).read_text())
    return [Block(page, number, language, text) for number, (language, text) in enumerate(found, 1)]


def blocks_to_run() -> list[Block]:
    """Return the blocks of all pages that are not in :data:`NOT_RUN`."""
    return [block for page in PAGES for block in blocks(page) if (page, block.first_line) not in NOT_RUN]
