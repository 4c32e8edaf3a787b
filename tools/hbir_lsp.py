"""hbir-lsp: the language server for `.mlir` files."""

from __future__ import annotations

import click

__all__ = ["main"]

_EXAMPLES = """\b
Neovim (0.11 or newer), in init.lua:
  vim.lsp.config('hbir', { cmd = { 'hbir-lsp' }, filetypes = { 'mlir' }, root_markers = { '.git' } })
  vim.lsp.enable('hbir')
\b
Visual Studio Code, with the extensions "MLIR" (llvm-vs-code-extensions.vscode-mlir), which knows the language, and
"Generic LSP Client (v2)" (zsol.vscode-glspc), in settings.json:
  "glspc.server.command": "hbir-lsp",
  "glspc.server.languageId": ["mlir"]
\b
Helix, in languages.toml:
  [language-server.hbir]
  command = "hbir-lsp"
  [[language]]
  name = "mlir"
  language-servers = ["hbir"]
\b
Emacs (eglot):
  (add-to-list 'eglot-server-programs '(mlir-mode . ("hbir-lsp")))
"""


@click.command(epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option("--stdio", is_flag=True, help="Speak over stdin and stdout, which is the only way; editors may pass it.")
def main(stdio: bool) -> None:
    """Answer an editor about MLIR modules: errors with their codes, documentation of operations, types, scales and layers
    of values, definitions, references, an outline, completion and renaming.

    Works while a file is being edited. An editor starts it; needs the extra `lsp` of the package.
    """
    del stdio
    from tools.console import command_errors

    with command_errors():
        from importlib.util import find_spec

        from hbir.errors import ConfigError
        from tools.refusals import Refusal

        if find_spec("pygls") is None or find_spec("lsprotocol") is None:
            raise ConfigError(
                Refusal.EXTRA,
                "the language server needs pygls",
                why="it is not installed",
                lever="pip install 'hbir[lsp]'",
            )
        from tools.lsp.server import build_server

        build_server().start_io()


if __name__ == "__main__":
    main()
