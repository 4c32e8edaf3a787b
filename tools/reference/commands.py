"""The commands: what `--help` says of each, and their options."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pkgutil import iter_modules
from typing import Any, cast

import click

import tools
from tools.reference.pipelines import Option

__all__ = ["CommandPage", "command_pages", "commands"]

_WIDTH = 100


@dataclass(frozen=True)
class CommandPage:
    """One command, or subcommand of one."""

    name: str
    home: str
    """The module that holds it."""
    doc: str
    help: str
    """What `--help` prints."""
    options: tuple[Option, ...]


def commands() -> dict[str, click.Command]:
    """The commands by name: each is the `main` of a file of `tools`, whose docstring begins with the command's name."""
    found: dict[str, click.Command] = {}
    for info in iter_modules(tools.__path__):
        if not info.ispkg:
            module = importlib.import_module(f"tools.{info.name}")
            main = vars(module).get("main")
            if isinstance(main, click.Command):
                found[(module.__doc__ or "").partition(":")[0]] = main
    return dict(sorted(found.items()))


def _option(parameter: click.Parameter) -> Option:
    if isinstance(parameter, click.Option):
        name = ", ".join([*parameter.opts, *parameter.secondary_opts])
        default = parameter.default
        shown = "" if parameter.is_flag or default is None or callable(default) or not isinstance(
            default, str | int | float
        ) else str(default)  # fmt: skip
        kind = "flag" if parameter.is_flag else parameter.metavar or _type(parameter)
        return Option(name, kind, shown, parameter.help or "")
    name = (parameter.metavar or parameter.name or "").upper()
    return Option(name, _type(parameter), "", "required" if parameter.required else "")


def _type(parameter: click.Parameter) -> str:
    kind: Any = parameter.type
    if isinstance(kind, click.Choice):
        return " | ".join(str(choice) for choice in cast(Any, kind).choices)
    return kind.name


def _pages(name: str, command: click.Command, parent: click.Context | None) -> Iterator[CommandPage]:
    last = name.rpartition(" ")[2]
    # As the command makes its own: click keeps the help option that is asked for first.
    settings: dict[str, Any] = {**command.context_settings, "terminal_width": _WIDTH, "max_content_width": _WIDTH}
    context = click.Context(command, info_name=last, parent=parent, **settings)
    home = command.callback.__module__ if command.callback else ""
    listed = [each for each in command.get_params(context) if not getattr(each, "hidden", False)]
    yield CommandPage(
        name, home, command.help or "", command.get_help(context), tuple(_option(each) for each in listed)
    )
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            found = command.get_command(context, each)
            if found is not None:
                yield from _pages(f"{name} {each}", found, context)


def command_pages() -> tuple[CommandPage, ...]:
    """All commands and subcommands, in the order of their names."""
    return tuple(page for name, command in commands().items() for page in _pages(name, command, None))
