"""Values written as text, as YAML 1.2's core schema reads them, wherever text is taken: options, profiles, configurations."""

import pytest
import yaml

from weightlab import values
from weightlab.errors import UserError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        ("012", 12),
        ("08", 8),
        ("0o17", 15),
        ("0x1F", 31),
        ("-.5", -0.5),
        ("true", True),
        ("null", None),
        ("", None),
        ("[3, 5]", [3, 5]),
        ("{a: 1e-3, b: off}", {"a": 0.001, "b": "off"}),
        ("'12'", "12"),
        # What YAML 1.1 made numbers, times, dates or truth values of.
        ("on", "on"),
        ("no", "no"),
        ("y", "y"),
        ("1:12", "1:12"),
        ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"),
        ("2026-13-01", "2026-13-01"),
        ("0b11", "0b11"),
    ],
)
def test_values_are_those_of_the_core_schema(text, value):
    found = values.read(text, "it")
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{a: 1, b: 2, a: 3}", "found duplicate key (line 1, column 14)"),
        ("a: 1\na: 2", "found duplicate key (line 2, column 1)"),
        ("[1", "expected ',' or ']', but got '<stream end>'"),
        ("!!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("!!timestamp 2024-01-01", "could not determine a constructor"),
        ("!!int twelve", "twelve"),
        ("!!bool on", "on"),
        ("a\0", "special characters are not allowed"),
        ("[" * 5000, "recursion"),
    ],
    ids=lambda text: text[:20],
)
def test_what_is_no_value_is_refused_in_one_sentence(text, problem):
    with pytest.raises(UserError) as caught:
        values.read(text, "the value in 'x=...'")
    assert str(caught.value).startswith("the value in 'x=...' is not valid YAML: ") and problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_are_assigned_once():
    assert values.assigned(["a=1e-3", "b=x=y", "c="]) == {"a": 0.001, "b": "x=y", "c": None}
    with pytest.raises(UserError, match="--set takes each name once, got 'a' again in 'a=2'"):
        values.assigned(["a=1", "a=2"])
    with pytest.raises(UserError, match="--set takes NAME=VALUE, got 'a'"):
        values.assigned(["a"])


def test_a_file_is_read_by_the_same_rules(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("a: 1e-3\nb: on\nc: 012\nd: [1:12, 2024-01-01]\n")
    assert values.read_file(file) == {"a": 0.001, "b": "on", "c": 12, "d": ["1:12", "2024-01-01"]}
    assert values.read_file(file, as_text=True) == {"a": "1e-3", "b": "on", "c": "012", "d": ["1:12", "2024-01-01"]}
    file.write_text("")
    assert values.read_file(file) == values.read_file(file, as_text=True) == {}
    for text, problem in [
        (b"a: 1\na: 2\n", "found duplicate key"),
        (b"- 3\n", "must hold 'name: value' lines, got list"),
        (b"\xff", "cannot be read"),
    ]:
        file.write_bytes(text)
        for as_text in (False, True):
            with pytest.raises(UserError, match=problem):
                values.read_file(file, as_text)


@pytest.mark.parametrize("number", [1e-5, 1e20, 0.1, 1 / 3, 5e-324, -2.5])
def test_numbers_that_are_written_are_read_as_they_were(number):
    assert values.read(str(number), "it") == values.read(yaml.safe_dump(number), "it") == number
