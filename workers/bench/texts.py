"""Texts that look like a shop's: mostly short product titles, every fifth with a description."""

import random

_WORDS = (
    "Northfield|Alder|Bluebird|Casa Verde|Dunmore|Elmwood|Farmhouse|Golden Gate|Harrow|Ivory|Juniper|Kestrel",
    "organic|fresh|smoked|classic|light|crunchy|vintage|folding|stainless|waterproof|wireless|wooden|soft",
    "apple juice|rye bread|olive oil|green tea|coffee beans|kitchen knife|desk lamp|bath towel|rain jacket|phone case",
    "250 g|500 g|1 kg|330 ml|1 l|6 pack|12 pack|small|medium|large|set of 3|pair",
)
_REMARKS = (
    "Made in small batches from carefully chosen ingredients and packed by hand.",
    "A dependable everyday choice that lasts, with a two year guarantee.",
    "Store in a cool, dry place and use within four weeks of opening.",
    "Designed for busy homes: easy to clean, easy to store, and a pleasure to use.",
    "Our customers' favourite for years, now in recyclable packaging.",
)

DOCUMENT = 16  # remarks in a document


def titles(count: int, *, seed: int = 0) -> list[str]:
    """`count` distinct titles."""
    draw = random.Random(seed)  # noqa: S311 - the same texts every time
    return [_title(draw, number) for number in range(count)]


def descriptions(count: int, *, seed: int = 0) -> list[str | None]:
    """A description of one to three sentences for every fifth, None for the others."""
    draw = random.Random(seed)  # noqa: S311
    return [" ".join(draw.sample(_REMARKS, draw.randint(1, 3))) if number % 5 == 0 else None for number in range(count)]


def documents(count: int, *, seed: int = 0) -> list[str | None]:
    """A description of some 200 words for every one."""
    draw = random.Random(seed)  # noqa: S311
    return [" ".join(draw.choices(_REMARKS, k=DOCUMENT)) for _ in range(count)]


def _title(draw: random.Random, number: int) -> str:
    words = (draw.choice(choices.split("|")) for choices in _WORDS)
    return f"{' '.join(words)} no. {number}"
