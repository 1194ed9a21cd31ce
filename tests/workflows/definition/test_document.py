import pytest

from workflows.definition.document import read


def test_every_value_knows_its_line() -> None:
    document = read("a: 1\nb:\n  - x\n  - c: 2\n")
    assert document.data == {"a": 1, "b": ["x", {"c": 2}]}
    assert [document.line(path) for path in [("a",), ("b",), ("b", 0), ("b", 1, "c")]] == [1, 2, 3, 4]


def test_a_missing_key_is_placed_where_it_should_stand() -> None:
    assert read("a: 1\nb:\n  c: 2\n").line(("b", "d", "e")) == 2


@pytest.mark.parametrize(
    "word", ["yes", "no", "on", "off", "y", "2026-01-31", "1:30", "007", "0x1f", "1_000"]
)
def test_what_older_yaml_turns_into_something_else_stays_text(word: str) -> None:
    assert read(f"- {word}").data == [word]


def test_numbers_booleans_and_null_are_what_they_look_like() -> None:
    assert read("[1, -2, 0.5, 1e3, true, False, null, ~, ]").data == [
        1,
        -2,
        0.5,
        1000.0,
        True,
        False,
        None,
        None,
    ]


def test_anchors_and_merges_share_what_stands_once() -> None:
    assert read("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: *a").data == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 1, "y": 3},
        "c": {"x": 1, "y": 2},
    }


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: 1\nb: [1, 2", 2, "expected ',' or ']'"),
        ("a: 1\nb: `x`", 2, "quote a value that begins with a backtick"),
        ("a: {b: ${{ x }}}", 1, "quote a ${{ … }}"),
        ("a: ${{ {b: c} }}", 1, "quote a ${{ … }}"),
        ("a:\n\t- 1", 2, "indent with spaces"),
        ("a: 1\na: 2", 2, "duplicate key, first used on line 1"),
        ("a: &a [*a]", 1, "an alias contains itself"),
        ("a: !!binary aGk=", 1, "has the tag binary"),
        ("a: !!python/object/apply:os.getcwd []", 1, "has the tag python/object"),
        ("a: !!int many", 1, "'many' is not a valid int"),
        ("a: !!float x", 1, "'x' is not a valid float"),
        ("? [a]\n: 1", 1, "expected a key of plain text"),
        ("a: 1\n---\nb: 2", 2, "expected a single document"),
        ("a: \x07", 1, "not valid YAML"),
    ],
)
def test_what_is_no_yaml_says_where_and_why(text: str, line: int, said: str) -> None:
    _, where, message = read(text).faults[0]
    assert (where, said in message) == (line, True), message


def test_aliases_of_aliases_do_not_grow_without_end() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "too large" in read("\n".join(lines)).faults[0][2]


@pytest.mark.parametrize("depth", [120, 450, 700, 5000])
def test_what_is_nested_too_deep_is_said_and_not_raised(depth: int) -> None:
    for text in ("[" * depth + "]" * depth, "{a: " * depth + "}" * depth):
        assert read(text).faults


def test_a_number_that_no_json_holds_stays_text() -> None:
    assert read("[1e999, -1e999]").data == ["1e999", "-1e999"]


def test_a_bracket_that_is_still_open_at_the_end_is_a_fault_of_this_file() -> None:
    document = read("steps: [\n")
    assert [line for _, line, _ in document.faults] == [2]
    assert document.data is None
