"""As much of SQL's lexical structure as it takes to say whether a text keeps to its place between two brackets."""

import re

_TOKEN = re.compile(
    r"""
      --[^\n]*                                  # a comment to the end of the line
    | /\*                                       # a comment that nests
    | [eE]'(?:[^'\\]|''|\\.)*'                  # a string with escapes
    | '(?:[^']|'')*'                            # a string; U&'' ends alike
    | "(?:[^"]|"")*"                            # a name
    | (?<![\w$])\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$  # a dollar quote
    | [\w$]+                                    # a word, which may hold a dollar
    | .
    """,
    re.VERBOSE | re.DOTALL,
)
_PAIRS = {")": "(", "]": "["}


def keeps_to_its_place(text: str) -> bool:
    """Whether no bracket is closed that was not opened, all are closed, and no statement or list goes on outside of them."""
    opened: list[str] = []
    at = 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        assert token is not None
        if token[0] == "/*":
            at = _end_of_comment(text, at)
            continue
        at = token.end()
        if not _holds(token[0], opened):
            return False
    return not opened


def _holds(token: str, opened: list[str]) -> bool:
    if token in "([":
        opened.append(token)
    elif token in _PAIRS:
        return bool(opened) and opened.pop() == _PAIRS[token]
    elif token in "'\"":
        return False  # opened and never closed
    return not (token == ";" or (token == "," and not opened))


def _end_of_comment(text: str, at: int) -> int:
    depth = 0
    for mark in re.finditer(r"/\*|\*/", text[at:]):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return at + mark.end()
    return len(text)
