"""What a person would have typed: texts that look like the field they stand in."""

import random
import re
from typing import Any

from sandbox.annotators.labels import label_names

WORDS = [
    "amber",
    "bridge",
    "canal",
    "delta",
    "ember",
    "field",
    "garden",
    "harbor",
    "island",
    "juniper",
    "kettle",
    "lantern",
    "meadow",
    "needle",
    "orchard",
    "paper",
    "quarry",
    "river",
    "saddle",
    "timber",
    "umber",
    "valley",
    "willow",
    "yard",
    "zephyr",
]
NAMES = ("Ada Brandt", "Bilal Chowdhury", "Carla Diaz", "Deniz Erdem", "Esi Fofie", "Farid Gupta")


def sentence(die: random.Random, words: int | None = None) -> str:
    chosen = [die.choice(WORDS) for _ in range(words or die.randint(5, 11))]
    return " ".join(chosen).capitalize() + "."


def value_for(name: str, described: Any, die: random.Random) -> str:
    """Text for one field: one of its choices if it has some, else what its name asks for.

    Values are texts also where they say numbers ("10.00"), as Scale returns them.
    """
    if isinstance(described, dict):
        choices = label_names(described.get("choices"))
        if choices:
            return die.choice(choices)
        described = described.get("description")
    asked = f"{name} {described or ''}".lower()
    word = die.choice(WORDS)
    for pattern, make in (
        (r"mail", lambda: f"{word}@example.com"),
        (r"\burl\b|website|link", lambda: f"https://www.example.com/{word}"),
        (r"phone|fax", lambda: f"+1 415 555 {die.randint(0, 9999):04d}"),
        (r"date|day", lambda: f"2024-{die.randint(1, 12):02d}-{die.randint(1, 28):02d}"),
        (r"amount|price|total|cost|sum", lambda: f"{die.randint(1, 500)}.{die.randint(0, 99):02d}"),
        (r"count|number|quantity|qty", lambda: str(die.randint(1, 99))),
        (r"name|author|person", lambda: die.choice(NAMES)),
        (r"address|street", lambda: f"{die.randint(1, 300)} {word.capitalize()} Street"),
    ):
        if re.search(pattern, asked):
            return make()
    return f"{word} {die.choice(WORDS)}".capitalize()
