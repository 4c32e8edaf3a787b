"""Places that raise a code are read from the source, however the number comes there."""

from __future__ import annotations

import pytest

from tools.reference.raised import raise_sites

ERRORS = """
class HbError(Exception): ...

class PassError(HbError):
    family = 300

class ConfigError(HbError):
    family = 800
"""

REFUSALS = """
from enum import IntEnum

class Refusal(IntEnum):
    FILE = 22
    SYSTEM = 23
"""


def codes(text: str, **others: str) -> list[tuple[str, int]]:
    """(code, line) of what `text` raises, with the error classes and an enumeration beside it."""
    files = {"a/errors.py": ERRORS, "a/refusals.py": REFUSALS, "a/it.py": text, **others}
    sites, unread = raise_sites(files)
    assert not unread
    return [(site.code, site.line) for site in sites if site.file == "a/it.py"]


HELPER = """
def _damaged(number, why):
    return PassError(number, 'damaged', why=why)
raise _damaged(21, 'short')
"""

FACTORY = """
def _refusal(number, what):
    return lambda given: PassError(number, given)
check(x, _refusal(4, 'n'))
"""

METHOD = """
class Node:
    def refuse(self, number, what):
        return PassError(number, what)
node.refuse(9, 'no')
refuse(8, 'another one')
"""

NESTED = """
def f():
    def no(number):
        return PassError(number, 'a')
    return no(1)
def g():
    return no(2)
"""

CALLBACK = """
class Node:
    def odd(self, what):
        return PassError(3, what)
    def any(self, number, what):
        return PassError(number, what)
apply(node.odd)
"""

AGAIN = """
try: f()
except PassError as error:
    raise PassError(int(error.code[2:]) - 300, error.what)
"""

CHOSEN = """
def make(deep):
    number = 5 if deep else 6
    return PassError(number, 'broken')
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("raise PassError(5, 'broken')", ["HB0305"]),
        ("raise PassError(number=5, what='broken')", ["HB0305"]),
        ("from a.refusals import Refusal\nraise ConfigError(Refusal.FILE, 'no')", ["HB0822"]),
        ("from a.refusals import Refusal\nraise ConfigError(*(Refusal.SYSTEM, 'no'), where='x')", ["HB0823"]),
        ("raise PassError(5 if deep else 6, 'broken')", ["HB0305", "HB0306"]),
        ("check(value, lambda given, why: PassError(7, given, why=why))", ["HB0307"]),
        (CHOSEN, ["HB0305", "HB0306"]),
        (HELPER, ["HB0321"]),
        (FACTORY, ["HB0304"]),
        (METHOD, ["HB0309"]),
        (NESTED, ["HB0301"]),
        (AGAIN, []),
        ("raise ValueError(5, 'not one of ours')", []),
    ],
)
def test_a_code_is_read_however_it_is_given(text: str, expected: list[str]) -> None:
    assert [code for code, _ in codes(text)] == expected


def test_a_helper_is_followed_through_files_and_other_helpers() -> None:
    node = """
class Node:
    def refuse(self, number, what):
        return PassError(number, what)
    def odd(self, what):
        return self.refuse(3, what)
"""
    assert codes("node.odd('a')\n\nnode.odd('b')", **{"a/node.py": node}) == [("HB0303", 1), ("HB0303", 3)]


def test_the_message_and_the_change_are_told_as_the_source_spells_them() -> None:
    text = """
def _bad(number, what, lever='mend it'):
    return PassError(number, what, lever=lever)
raise _bad(2, f'no {name}', f'use {x}')
"""
    (site,) = (s for s in raise_sites({"e.py": ERRORS, "it.py": text})[0] if s.file == "it.py")
    assert (site.what, site.lever) == ("no {name}", "use {x}")
    text = """
LEVER = 'mend it'
def run(x):
    what = f'{x} is odd' if x else 'nothing is given'
    raise PassError(2, what, lever=LEVER)
"""
    (site,) = (s for s in raise_sites({"e.py": ERRORS, "it.py": text})[0] if s.file == "it.py")
    assert (site.what, site.lever) == ("{x} is odd | nothing is given", "mend it")


def test_a_helper_that_is_called_nowhere_is_a_place_itself() -> None:
    sites, unread = raise_sites({"e.py": ERRORS, "it.py": CALLBACK})
    assert [(site.code, site.line, site.what) for site in sites] == [("HB0303", 4, "{what}")]
    assert [each.line for each in unread] == [6]


def test_a_number_that_the_source_does_not_tell_is_reported() -> None:
    for text in ("raise PassError(numbers[0], 'x')", "raise PassError(*parts)", "raise PassError(Unknown.MEMBER, 'x')"):
        sites, unread = raise_sites({"e.py": ERRORS, "it.py": text})
        assert not sites and [(each.file, each.line) for each in unread] == [("it.py", 1)]
