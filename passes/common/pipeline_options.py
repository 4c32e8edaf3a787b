"""Checks of what a `Pipeline` is given besides its passes: input sets, a stream, switches, paths, names of passes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TextIO, cast

from hbir.arguments import checked_kind, checked_path, shown
from hbir.dialects.base import Array
from hbir.errors import PassError
from passes.debugging.equivalence import Feeds

__all__ = ["checked_choice", "checked_feeds", "checked_flag", "checked_names", "checked_stream", "optional_path"]


def checked_choice(option: str, given: object, choices: Collection[str]) -> str:
    """One of some words. Raises PassError HB0307."""
    if not isinstance(given, str) or given not in choices:
        raise PassError(7, f"{option} is {shown(given)}", lever=f"choose one of {', '.join(choices)}")
    return given


def checked_feeds(given: object) -> Feeds:
    """Input sets: mappings from names. Raises PassError HB0307; arrays are checked against the inputs when they are fed."""
    lever = "give a list of input sets, each {input name: array}"
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise PassError(7, f"feeds is {shown(cast(object, given))}", lever=lever)
    feeds = tuple(cast(Iterable[object], given))
    for number, feed in enumerate(feeds):
        if not isinstance(feed, Mapping):
            raise PassError(7, f"feeds[{number}] is {shown(feed)}", lever=lever)
        for name in cast(Mapping[object, object], feed):
            checked_kind(name, str, lambda key, why, at=number: PassError(7, f"feeds[{at}] names {key}", lever=lever))
    return cast(tuple[Mapping[str, Array], ...], feeds)


def checked_stream(given: object) -> TextIO | None:
    """Something that text can be written to, or None. Raises PassError HB0307."""
    if given is not None and not callable(getattr(given, "write", None)):
        lever = "give an open text file, or leave it out for stderr"
        raise PassError(7, f"stream is {shown(given)}", why="it has no method write", lever=lever)
    return cast(TextIO | None, given)


def checked_flag(option: str, given: object) -> bool:
    """True or False. Raises PassError HB0307."""
    return checked_kind(
        given, bool, lambda value, why: PassError(7, f"{option} is {value}", lever="choose True or False")
    )


def optional_path(option: str, path: object, lever: str) -> Path | None:
    """A path or None. Raises PassError HB0307."""
    if path is None:
        return None
    return checked_path(path, lambda given, why: PassError(7, f"{option} is {given}", why=why, lever=lever))


def checked_names(given: object, steps: Collection[str]) -> bool | tuple[str, ...]:
    """`print_after` as True, False or some of the names of the passes in a pipeline. Raises PassError HB0307."""
    if isinstance(given, bool):
        return given
    known = list(dict.fromkeys(steps))
    lever = f"give True, or a list of some of {', '.join(known) or 'no pass: the pipeline is empty'}"
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise PassError(7, f"print_after is {shown(given)}", lever=lever)
    names = tuple(cast(Iterable[str], given))
    for name in names:
        if name not in known:
            raise PassError(7, f"print_after names {shown(name)}, which is not in the pipeline", lever=lever)
    return names
