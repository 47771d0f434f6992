"""docs/deploy.md as a script: its blocks of shell, in their order."""

import re
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "deploy.md"

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """What stands between two fences."""

    chapter: str
    language: str
    text: str


def every_block() -> list[Block]:
    """All that is fenced, of any language."""
    chapters = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]
    return [
        Block(chapter.splitlines()[0], language, text)
        for chapter in chapters
        for language, text in _FENCE.findall(chapter)
    ]


def script() -> list[Block]:
    """The blocks that a reader types."""
    return [block for block in every_block() if block.language == "sh"]


def prose() -> str:
    """The page without what is fenced."""
    return _FENCE.sub("", PAGE.read_text())
