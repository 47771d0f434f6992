"""docs/deploy.md: no command of it that tests/acceptance/test_compose.py does not run."""

import ast
import re
import subprocess
from pathlib import Path

from tests.acceptance.page import PAGE, every_block, prose, script

RUNS_THEM = Path(__file__).parents[1] / "acceptance" / "test_compose.py"

NOT_RUN = {"--profile grafana"}  # its image is made elsewhere; its files are looked at in test_compose_file.py


def chapters_followed() -> list[str]:
    """The chapters of whose blocks one is run, by call, in the order of the tests."""
    calls = [node for node in ast.walk(ast.parse(RUNS_THEM.read_text())) if isinstance(node, ast.Call)]
    followed = [
        (call.lineno, call.col_offset, ast.literal_eval(call.args[0]))
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr == "follow"
    ]
    return [chapter for _, _, chapter in sorted(followed)]


def test_every_block_is_run_in_its_order() -> None:
    blocks = script()
    assert len(blocks) > 10
    assert chapters_followed() == [block.chapter for block in blocks]


def test_what_is_fenced_and_no_script_is_nothing_to_type() -> None:
    assert {block.language for block in every_block()} <= {"sh", "ini"}


def test_commands_between_the_lines_are_run_as_well() -> None:
    typed = "\n".join(block.text for block in script())
    commands = re.findall(r"`((?:docker|psql|--profile) [^`]*)`", prose())
    assert commands
    assert [one for one in commands if one not in typed and one not in NOT_RUN] == []


def test_the_blocks_are_shell() -> None:
    for block in script():
        done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), block


def test_links_within_the_page_lead_somewhere() -> None:
    text = PAGE.read_text()
    headings = {
        re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)", text, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([\w-]+)\)", text)) - headings == set()
