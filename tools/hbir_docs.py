"""hbir-docs: the reference pages, as one folder of HTML; or what an error code means, in the terminal."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from hbir.error_codes import ErrorCode

__all__ = ["main"]

_EXAMPLES = """\b
Examples:
  hbir-docs HB0305                (what an error code means, and what helps)
  hbir-docs HB0305 HB0321 --json
  hbir-docs -o reference          (then open reference/index.html)
"""

_NEEDS = {"griffe": "griffelib", "markdown_it": "markdown-it-py"}
"""What only the pages need: modules, and the packages that hold them."""


def _row(code: str) -> ErrorCode:
    from hbir.error_codes import error_codes
    from hbir.errors import ConfigError
    from tools.refusals import Refusal

    rows = error_codes()
    name = code.upper() if code.upper().startswith("HB") else f"HB{code:0>4}"
    if name not in rows:
        known = [each for each in rows if each[:4] == name[:4]] or [f"{next(iter(rows))} to {list(rows)[-1]}"]
        raise ConfigError(Refusal.VALUE, f"there is no error code {code}", lever=f"choose one of {', '.join(known)}")
    return rows[name]


def _as_json(row: ErrorCode) -> dict[str, Any]:
    from hbir.error_codes import family_of

    return {"code": row.code, "family": family_of(row.code).__name__, "meaning": row.meaning, "remedy": row.remedy}


def _explain(codes: tuple[str, ...], *, as_json: bool) -> None:
    from tools.console import print_coloured, print_json

    found = [_as_json(_row(code)) for code in codes]
    if as_json:
        print_json(found)
        return
    for row in found:
        lines = [
            (f"{row['code']}  {row['family']}", "bold"),
            (f"  {row['meaning']}", ""),
            (f"  Change: {row['remedy']}", ""),
        ]
        print_coloured(lines)


def _build(folder: Path, *, quiet: bool, as_json: bool) -> None:
    from hbir.errors import ConfigError
    from tools.console import Log, print_json, print_lines
    from tools.refusals import Refusal

    missing = [package for module, package in _NEEDS.items() if find_spec(module) is None]
    if missing:
        lever = "pip install 'hbir[docs]'"
        raise ConfigError(Refusal.EXTRA, f"the pages need {' and '.join(missing)}", why="not installed", lever=lever)
    from tools.reference import build_reference

    log = Log(quiet=quiet)
    with log.stage("pages", "write the reference pages"):
        counts = build_reference(folder)
    if as_json:
        print_json(counts)
    elif not quiet:
        print_lines(f"{folder / 'index.html'}: {', '.join(f'{count} {kind}' for kind, count in counts.items())}")


@click.command(epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.argument("codes", nargs=-1, metavar="[CODE]...")
@click.option("-o", "--output", metavar="FOLDER", type=click.Path(path_type=Path), help="Write the pages here.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr, and no last line.")
@click.option("--json", "as_json", is_flag=True, help="JSON in place of text.")
def main(codes: tuple[str, ...], output: Path | None, quiet: bool, as_json: bool) -> None:
    """Write the reference pages of every public name, operation, pass, error code and command, or explain each CODE.

    The pages are made from docstrings, registries and tables. They need no server and no network.
    """
    from tools.console import command_errors

    with command_errors():
        from hbir.errors import ConfigError
        from tools.refusals import Refusal

        if output is None and not codes:
            raise ConfigError(
                Refusal.MISSING, "give an error code, or a folder for the pages", lever="see hbir-docs --help"
            )
        if output is not None and codes:
            raise ConfigError(
                Refusal.CONFLICT, "an error code and -o exclude each other", lever="run the command twice"
            )
        if output is None:
            _explain(codes, as_json=as_json)
        else:
            _build(output, quiet=quiet, as_json=as_json)


if __name__ == "__main__":
    main()
