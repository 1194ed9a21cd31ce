"""The split of each task: a hash of its split key, so that adding tasks never moves one. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

from pipeline.datasets.filters import Unusable, check_text

WHOLE = "train"
"""The split of everything where no shares are given."""
SPLIT_BY = ("task", "attachment", "lineage")
METADATA = "metadata."
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_DEVICES = re.compile(r"con|prn|aux|nul|com[0-9]|lpt[0-9]")


class Shares(dict[str, float]):
    """Share by name of the split, in the order in which they were given."""


def parse_shares(text: str) -> Shares:
    """Parse `train=0.8,val=0.1,test=0.1`. Raises Unusable unless the shares are positive and add up to 1."""
    shares = Shares()
    for part in text.split(","):
        name, found, share = (piece.strip() for piece in part.partition("="))
        if not found or not _NAME.fullmatch(name) or _DEVICES.fullmatch(name):
            raise Unusable(f"{part.strip()!r} is no split; write for example train=0.8,val=0.1,test=0.1.")
        if name in shares:
            raise Unusable(f"The split {name} is given twice.")
        shares[name] = _share(name, share)
    total = sum(shares.values())
    if abs(total - 1) > 1e-6:
        raise Unusable(f"The shares of the splits add up to {total:.6g}; they have to add up to 1.")
    return shares


def _share(name: str, text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise Unusable(f"The share of {name} is {text!r}; it has to be a number above 0 and at most 1.")
    return share


def check_split_by(split_by: str) -> str:
    """Raise Unusable unless it is one of SPLIT_BY or names a key of the metadata."""
    check_text("The split key", split_by)
    if split_by in SPLIT_BY or (split_by.startswith(METADATA) and split_by != METADATA):
        return split_by
    raise Unusable(f"Tasks cannot be split by {split_by}; take task, attachment, lineage or metadata.KEY.")


def assign(key: str, shares: Mapping[str, float]) -> str:
    """Return the split of everything that has this key: the same one whatever else is in the dataset."""
    place = int.from_bytes(sha256(key.encode(errors="surrogatepass")).digest()[:8]) / 2**64
    end = 0.0
    names = list(shares)
    for name in names:
        end += shares[name]
        if place < end:
            return name
    return names[-1]


class Member(NamedTuple):
    """What the split of a task depends on."""

    task_id: str
    key: str
    """Of its own: see `split_by`. Tasks with equal keys are in one split."""
    images: tuple[str, ...]
    """Addresses of its attachments: tasks that share one are in one split as well."""


def split(members: Sequence[Member], shares: Mapping[str, float] | None) -> list[str]:
    """Return the split of each member.

    Members are joined by equal keys and by shared images. A group's split is the hash of its smallest key: tasks that
    join a group bring new images, but the key of the group is the one that it has already, so that nothing moves.
    """
    if shares is None:
        return [WHOLE] * len(members)
    groups = _Groups()
    for member in members:
        for image in member.images:
            groups.join(("key", member.key), ("image", image))
    smallest: dict[object, str] = {}
    for member in members:
        group = groups.find(("key", member.key))
        smallest[group] = min(member.key, smallest.get(group, member.key))
    return [assign(smallest[groups.find(("key", member.key))], shares) for member in members]


class _Groups:
    """Union-find with path halving."""

    def __init__(self) -> None:
        self._parents: dict[object, object] = {}

    def find(self, node: object) -> object:
        parents = self._parents
        while (parent := parents.get(node, node)) != node:
            parents[node] = parents.get(parent, parent)
            node = parents[node]
        return node

    def join(self, one: object, other: object) -> None:
        first, second = self.find(one), self.find(other)
        if first != second:
            self._parents[second] = first


def leaks(members: Iterable[tuple[str, str, Iterable[str]]]) -> dict[str, list[str]]:
    """Return key → splits of each key whose members are in several splits. `members`: (task_id, split, keys and images)."""
    splits: dict[str, set[str]] = {}
    for _, name, keys in members:
        for key in keys:
            splits.setdefault(key, set()).add(name)
    return {key: sorted(names) for key, names in splits.items() if len(names) > 1}
