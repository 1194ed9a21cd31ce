"""Spans of texts: spaCy documents and CoNLL columns."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.exports.conftest import Export


def splits_of(folder: Path, suffix: str) -> list[Path]:
    return [folder / f"{split}.{suffix}" for split in ("train", "val")]


def test_spacy_reads_the_entities(export: Export, tmp_path: Path, read_back: Callable[..., Any]) -> None:
    export("spacy")
    documents = [one for path in splits_of(tmp_path / "spacy", "spacy") for one in read_back("spacy", path)]
    assert documents == [
        {"text": "Old Mill is run by Anna 😀.", "entities": [[0, 8, "place"], [19, 23, "person"]]}
    ]
    lines = [
        json.loads(line)
        for path in splits_of(tmp_path / "spacy", "jsonl")
        for line in path.read_text().splitlines()
    ]
    assert [(span["start"], span["end"], span["label"]) for span in lines[0]["spans"]] == [
        (0, 8, "place"),
        (19, 23, "person"),
    ]


def test_conll_tags_tokens(export: Export, tmp_path: Path) -> None:
    export("conll")
    text = "".join(path.read_text() for path in splits_of(tmp_path / "conll", "conll"))
    tokens = [line.split()[::3] for line in text.splitlines() if line]
    assert tokens[:2] == [["Old", "B-place"], ["Mill", "I-place"]]
    assert ["Anna", "B-person"] in tokens
    assert ["is", "O"] in tokens
