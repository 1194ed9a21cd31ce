"""The table of formats in the docs is that of the registry."""

from pathlib import Path

from exports.table import markdown


def test_the_table_of_formats_is_that_of_the_registry() -> None:
    page = (Path(__file__).parents[2] / "docs" / "exports.md").read_text()
    shown = page.partition("<!-- formats -->\n")[2].partition("\n<!-- end of formats -->")[0]
    assert shown == markdown()
