"""The table of error codes is what the source raises, and no code has two meanings."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

from hbir import errors
from hbir.error_codes import ErrorCode, error_codes, family_of
from tools.reference.raised import RaiseSite, Unread, raise_sites, sources

ROOT = Path(__file__).parents[3]


def room_of(file: str) -> str:
    """The room that a file is in: `hbir.ir`, `passes`, `backends.nash.isa`, `tools`."""
    parts = file.removesuffix(".py").removesuffix("/__init__").split("/")
    return ".".join(parts[: {"hbir": 2, "backends": 3}.get(parts[0], 1)])


def problems(sites: Iterable[RaiseSite], unread: Iterable[Unread], rows: Mapping[str, ErrorCode]) -> list[str]:
    """What is wrong between the places that raise codes and the table."""
    found = [f"{each.file}:{each.line}: the number of {each.text} cannot be read" for each in unread]
    rooms: dict[str, set[str]] = defaultdict(set)
    for site in sites:
        rooms[site.code].add(room_of(site.file))
        if site.code not in rows:
            found.append(f"{site.file}:{site.line}: {site.code} has no row in hbir/error_codes.toml")
    for code, row in rows.items():
        named = set(row.rooms) or rooms[code]
        if not rooms[code]:
            found.append(f"{code} has a row, and nothing raises it")
        elif rooms[code] != named or (len(named) > 1 and not row.rooms):
            found.append(f"{code} is raised in {sorted(rooms[code])}, its row says {list(row.rooms)}: one meaning?")
    return found


@cache
def of_the_source() -> tuple[tuple[RaiseSite, ...], tuple[Unread, ...]]:
    return raise_sites()


def test_the_table_is_what_the_source_raises() -> None:
    sites, unread = of_the_source()
    assert problems(sites, unread, error_codes()) == []
    assert len(sites) > 350 and len(error_codes()) > 170


def test_what_is_wrong_would_be_found() -> None:
    sites, rows = of_the_source()[0], error_codes()
    used_again = RaiseSite("HB0305", "backends/nash/tile/plan.py", 1, "no tile fits", "")
    assert any("HB0305" in problem for problem in problems([*sites, used_again], (), rows))
    new = RaiseSite("HB0399", "passes/quantize.py", 1, "something new", "")
    assert any("HB0399" in problem for problem in problems([*sites, new], (), rows))
    left = {**rows, "HB0398": replace(rows["HB0305"], code="HB0398")}
    assert any("HB0398" in problem for problem in problems(sites, (), left))
    assert problems(sites, [Unread("passes/x.py", 1, "PassError(n, 'x')")], rows)


def test_literal_numbers_and_mentions_are_in_the_table() -> None:
    families = {kind.__name__: kind.family for kind in errors.HbError.__subclasses__()}
    call = re.compile(rf"\b({'|'.join(families)})\(\s*(?:\*\()?(\d+),")
    literal = {f"HB{families[name] + int(n):04d}" for text in sources().values() for name, n in call.findall(text)}
    mentioned = {code for text in sources().values() for code in re.findall(r"\bHB0\d{3}\b", text)}
    readme = set(re.findall(r"\bHB0\d{3}\b", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert len(literal) > 80 and (literal | mentioned | readme) <= set(error_codes())


def test_a_row_is_a_sentence_and_a_remedy() -> None:
    rows = error_codes()
    assert list(rows) == sorted(rows)
    for code, row in rows.items():
        assert re.fullmatch(r"HB0[1-9]\d\d", code) and family_of(code) is not errors.HbError
        assert row.meaning[0].isupper() or row.meaning[0] == "`", code
        assert row.meaning.endswith(".") and row.remedy.endswith("."), code
    assert len({row.meaning for row in rows.values()}) == len(rows)
