"""Spans of texts: spaCy's binary documents with JSON Lines, and CoNLL columns. Offsets are code points."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from exports.export import Export, dumps
from exports.format import Format
from exports.report import Report
from pipeline.datasets.records import Task
from pipeline.datasets.texts import text_of
from scale.annotations import Annotation

NER = "namedentityrecognition"
NO_TEXT = "the task has no text"
OUTSIDE = "it does not lie within the text"
CUT = "it begins or ends within a word"
OVERLAP = "it overlaps an earlier span"
INCLUSIVE = "the end of a span was moved behind the last character that it names"
_TOKEN = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Span:
    """A span with the offsets of its first character and of the character after its last one."""

    start: int
    end: int
    annotation: Annotation


def _texts(export: Export) -> Iterator[tuple[Task, str, list[Span]]]:
    """Yield each task that has a text, with the spans that lie within it; the rest is counted as left out."""
    for task in export.tasks():
        if task.type != NER and not task.annotations:
            continue
        text = text_of(task.params)
        if text is None:
            export.report.leave_out(NO_TEXT, task, task.annotations)
            export.report.leave_out_task(NO_TEXT, task)
            continue
        spans = []
        for annotation in task.annotations:
            span = _span(export.report, task, text, annotation)
            if span is None:
                export.report.leave_out(OUTSIDE, task, [annotation])
            else:
                spans.append(span)
        yield task, text, spans


def _span(report: Report, task: Task, text: str, annotation: Annotation) -> Span | None:
    """Return the span; where its own text shows that `end` names the last character, with the end behind that."""
    start, end = int(annotation.geometry["start"]), int(annotation.geometry["end"])
    if not 0 <= start < end <= len(text):
        return None
    named = annotation.geometry.get("text")
    if isinstance(named, str) and text[start:end] != named and text[start : end + 1] == named:
        report.change(INCLUSIVE, task, annotation.type)
        end += 1
    return Span(start, end, annotation)


# spaCy.


def write_spacy(export: Export) -> None:
    """Write <split>.spacy with the entities that fit tokens, and <split>.jsonl with every span."""
    import spacy
    from spacy.tokens import DocBin

    blank = spacy.blank("xx")
    bins = {split: DocBin(attrs=["ENT_IOB", "ENT_TYPE"]) for split in export.splits}
    with ExitStack() as stack:
        lines = {split: stack.enter_context(export.open(f"{split}.jsonl")) for split in export.splits}
        for task, text, spans in _texts(export):
            lines[task.split].write(dumps(_record(task, text, spans)) + b"\n")
            bins[task.split].add(_document(export, task, blank.make_doc(text), spans))
            export.report.wrote_task(task)
            export.report.wrote(task, *(span.annotation for span in spans))
    for split, documents in bins.items():
        with export.open(f"{split}.spacy") as file:
            file.write(documents.to_bytes())


def _record(task: Task, text: str, spans: list[Span]) -> dict[str, Any]:
    return {
        "text": text,
        "spans": [
            {
                "start": span.start,
                "end": span.end,
                "label": span.annotation.label,
                "id": span.annotation.uuid,
                "attributes": span.annotation.attributes or {},
            }
            for span in spans
        ],
        "meta": {"task_id": task.task_id},
    }


def _document(export: Export, task: Task, document: Any, spans: list[Span]) -> Any:
    """Add the entities that begin and end with tokens and overlap no earlier one; the others are only in the JSON Lines."""
    entities: list[Any] = []
    last = 0
    for span in sorted(spans, key=lambda one: (one.start, -one.end)):
        found = document.char_span(span.start, span.end, label=span.annotation.label)
        if found is None:
            export.report.change(f"a span is only in the JSON Lines: {CUT}", task, "span")
        elif span.start < last:
            export.report.change(f"a span is only in the JSON Lines: {OVERLAP}", task, "span")
        else:
            entities.append(found)
            last = span.end
    document.ents = entities
    return document


SPACY = Format(
    "spacy",
    "<split>.spacy, <split>.jsonl: named entities for spaCy",
    {"span": "overlapping spans, and spans within a word, only in the .jsonl"},
    write_spacy,
    packages=("spacy",),
    needs_classes=True,
)


# CoNLL.


def write_conll(export: Export) -> None:
    """Write <split>.conll: a token a line with its IOB tag, an empty line after each text. Source: CoNLL-2003."""
    with ExitStack() as stack:
        files = {split: stack.enter_context(export.open(f"{split}.conll")) for split in export.splits}
        for task, text, spans in _texts(export):
            tokens = [(match.start(), match.end()) for match in _TOKEN.finditer(text)]
            tags = _tags(export, task, tokens, spans)
            lines = [
                f"{text[start:end]} -X- _ {tag}\n" for (start, end), tag in zip(tokens, tags, strict=True)
            ]
            files[task.split].write("".join([*lines, "\n"]).encode(errors="replace"))
            export.report.wrote_task(task)


def _tags(export: Export, task: Task, tokens: list[tuple[int, int]], spans: list[Span]) -> list[str]:
    """Return a tag for each token. Spans that cut a token or overlap an earlier one are counted as left out."""
    tags = ["O"] * len(tokens)
    first = {start: position for position, (start, _) in enumerate(tokens)}
    last = {end: position for position, (_, end) in enumerate(tokens)}
    for span in sorted(spans, key=lambda one: (one.start, -one.end)):
        if span.start not in first or span.end not in last:
            export.report.leave_out(CUT, task, [span.annotation])
            continue
        inside = range(first[span.start], last[span.end] + 1)
        if any(tags[position] != "O" for position in inside):
            export.report.leave_out(OVERLAP, task, [span.annotation])
            continue
        label = re.sub(r"\s+", "_", span.annotation.label or "")
        for position in inside:
            tags[position] = f"{'B' if position == inside[0] else 'I'}-{label}"
        export.report.wrote(task, span.annotation)
    return tags


CONLL = Format(
    "conll",
    "<split>.conll: named entities as CoNLL-2003 columns with IOB tags",
    {"span": "spans that overlap or begin within a word are left out"},
    write_conll,
    needs_classes=True,
)
