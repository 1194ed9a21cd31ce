"""Make texts that match the field they are for."""

import random
import re
from collections.abc import Callable
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


def make_sentence(rng: random.Random, words: int | None = None) -> str:
    """Return a sentence of random words."""
    chosen = [rng.choice(WORDS) for _ in range(words or rng.randint(5, 11))]
    return " ".join(chosen).capitalize() + "."


def make_value(name: str, described: Any, rng: random.Random) -> str:
    """Return a text for one field: one of its choices if it has some, else a value that matches its name.

    Numbers are texts ("10.00"), as Scale returns them.
    """
    if isinstance(described, dict):
        choices = label_names(described.get("choices"))
        if choices:
            return rng.choice(choices)
        described = described.get("description")
    text = f"{name} {described or ''}".lower()
    for pattern, make in _VALUES:
        if re.search(pattern, text):
            return make(rng)
    return f"{rng.choice(WORDS)} {rng.choice(WORDS)}".capitalize()


_VALUES: tuple[tuple[str, Callable[[random.Random], str]], ...] = (
    (r"mail", lambda rng: f"{rng.choice(WORDS)}@example.com"),
    (r"\burl\b|website|link", lambda rng: f"https://www.example.com/{rng.choice(WORDS)}"),
    (r"phone|fax", lambda rng: f"+1 415 555 {rng.randint(0, 9999):04d}"),
    (r"date|day", lambda rng: f"2024-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"),
    (r"amount|price|total|cost|sum", lambda rng: f"{rng.randint(1, 500)}.{rng.randint(0, 99):02d}"),
    (r"count|number|quantity|qty", lambda rng: str(rng.randint(1, 99))),
    (r"name|author|person", lambda rng: rng.choice(NAMES)),
    (r"address|street", lambda rng: f"{rng.randint(1, 300)} {rng.choice(WORDS).capitalize()} Street"),
)
"""Kinds of text fields: a pattern for the field's name and description, and a function that makes a value."""
