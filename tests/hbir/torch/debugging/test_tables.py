"""Tables as text, CSV and HTML."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from hbir.torch.debugging.page import render_page
from hbir.torch.debugging.tables import Chart, Table, write_csv, write_text

TABLE = Table(
    "t",
    "Title:",
    ("name", "value", "remark"),
    (("a<b>", 1.25, ""), ("c", math.inf, "x & y"), ("d", None, "")),
    marked=frozenset({1}),
    bar="value",
    chart=Chart("value", 0.0, 2.0, "values"),
)


def test_text_has_columns_and_marks() -> None:
    lines = TABLE.text().splitlines()
    assert lines[0] == "Title:"
    assert [line.split()[0] for line in lines[4:]] == ["a<b>", "!", "d"]
    assert lines[4].split() == ["a<b>", "1.25"] and lines[6].split() == ["d", "-"]
    assert len({line.index("remark") for line in lines if "remark" in line}) == 1


def test_csv_keeps_all_digits(tmp_path: Path) -> None:
    table = Table("t", "", ("name", "value"), (("a,b", 1 / 3), ("c", None)))
    write_csv(tmp_path / "t.csv", table)
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["name", "value"], ["a,b", repr(1 / 3)], ["c", ""]]


def test_empty_table_says_so(tmp_path: Path) -> None:
    write_text(tmp_path / "t.txt", [Table("t", "Nothing here:", ("a",), ())], "Head")
    assert (tmp_path / "t.txt").read_text().split("\n")[:2] == ["Head", "Nothing here:"]
    assert "(nothing)" in (tmp_path / "t.txt").read_text()


def test_page_is_escaped_and_self_contained() -> None:
    page = render_page("Page <1>", [TABLE], [("fact", "<i>", "")])
    assert "a&lt;b&gt;" in page and "a<b>" not in page and "&lt;i&gt;" in page
    assert "http" not in page and "<link" not in page and " src=" not in page
    assert page.count('<tr class="m">') == 1 and page.count("<circle") == 2
