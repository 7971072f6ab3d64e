import csv
import io
import json

from kcnn.table import render

ROWS = [
    {"name": "a", "n": 1234, "x": 0.98765, "about": "one two", "none": None},
    {"name": "long, name", "n": 5, "x": None, "about": "three", "none": None},
]


def test_columns_line_up_with_numbers_to_the_right():
    lines = render([{k: r[k] for k in ("name", "n", "x")} for r in ROWS], "table")
    assert lines.splitlines() == [
        "name            n       x",
        "a           1,234  0.9877",
        "long, name      5",
    ]


def test_long_values_stand_below_their_row():
    text = render(ROWS, "table", below=("about",))
    lines = text.splitlines()
    assert lines[1] == "" and lines[2].startswith("a ")
    assert lines[3] == "    one two"
    assert "about" not in lines[0]
    wide = render([ROWS[0] | {"about": "word " * 60}], "table", below=("about",))
    assert max(map(len, wide.splitlines())) <= 88


def test_json_and_csv_come_back():
    assert json.loads(render(ROWS, "json")) == ROWS
    found = list(csv.DictReader(io.StringIO(render(ROWS, "csv"))))
    assert found[1]["name"] == "long, name" and found[1]["x"] == ""


def test_a_line_break_in_a_value_breaks_no_line():
    text = render([{"a": "x\ny"}], "table")
    assert text.splitlines() == ["a", "x\\ny"]
