"""hbir-lsp as an editor runs it: a process that speaks the protocol over its standard streams."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from click.testing import CliRunner
from lsprotocol import types
from pygls.exceptions import JsonRpcException
from pygls.lsp.client import LanguageClient

from tests.tools.lsp.texts import MODULE
from tools.hbir_lsp import main

_URI = "file:///module.mlir"


class _Editor:
    """A client with one open file, and the reports it got."""

    def __init__(self) -> None:
        self.client = LanguageClient("editor", "1")
        self.file = types.TextDocumentIdentifier(_URI)
        self.reports: asyncio.Queue[types.PublishDiagnosticsParams] = asyncio.Queue()

        @self.client.feature(types.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)
        def _report(report: types.PublishDiagnosticsParams) -> None:
            self.reports.put_nowait(report)

    async def start(self, text: str) -> types.InitializeResult:
        await self.client.start_io(sys.executable, "-m", "tools.hbir_lsp")
        found = await self.client.initialize_async(types.InitializeParams(capabilities=types.ClientCapabilities()))
        self.client.initialized(types.InitializedParams())
        item = types.TextDocumentItem(_URI, "mlir", 1, text)
        self.client.text_document_did_open(types.DidOpenTextDocumentParams(item))
        return found

    def change(self, version: int, *changes: types.TextDocumentContentChangeEvent) -> None:
        file = types.VersionedTextDocumentIdentifier(uri=_URI, version=version)
        self.client.text_document_did_change(types.DidChangeTextDocumentParams(file, list(changes)))

    async def report(self) -> types.PublishDiagnosticsParams:
        return await asyncio.wait_for(self.reports.get(), 60)

    async def stop(self) -> str:
        """End the server; what it wrote to stderr."""
        await self.client.shutdown_async(None)
        self.client.exit(None)
        assert self.client._server is not None and self.client._server.stderr is not None
        said = (await self.client._server.stderr.read()).decode()
        await self.client.stop()
        return said


def position(text: str, part: str, shift: int = 0) -> types.Position:
    at = text.index(part) + shift
    return types.Position(text.count("\n", 0, at), at - (text.rfind("\n", 0, at) + 1))


def talk(conversation: Callable[[_Editor], Awaitable[Any]], text: str = MODULE) -> types.InitializeResult:
    async def run() -> types.InitializeResult:
        editor = _Editor()
        found = await editor.start(text)
        try:
            await conversation(editor)
        finally:
            assert await editor.stop() == "", "an answer is enough"
        return found

    return asyncio.run(asyncio.wait_for(run(), 120))


def test_a_file_is_opened_broken_mended_asked_about_and_closed() -> None:
    async def conversation(editor: _Editor) -> None:
        assert not (await editor.report()).diagnostics
        start, end = position(MODULE, "low = -100", 6), position(MODULE, "low = -100", 10)
        editor.change(2, types.TextDocumentContentChangePartial(types.Range(start, end), "-1000"))
        report = await editor.report()
        (wrong,) = report.diagnostics
        assert report.version == 2 and wrong.code == "HB0204" and wrong.source == "hbir"
        assert wrong.range == types.Range(
            position(MODULE, '"quantized.clamp"'), position(MODULE, '"quantized.clamp"', 17)
        )
        editor.change(3, types.TextDocumentContentChangeWholeDocument(MODULE))
        assert not (await editor.report()).diagnostics

        client, file = editor.client, editor.file
        use = position(MODULE, "(%1)", 1)
        hover = await client.text_document_hover_async(types.HoverParams(file, use))
        assert isinstance(hover, types.Hover) and isinstance(hover.contents, types.MarkupContent)
        assert "scale 0.05, zero point 3" in hover.contents.value
        definition = await client.text_document_definition_async(types.DefinitionParams(file, use))
        assert isinstance(definition, types.Location) and definition.range.start == position(MODULE, "%1 =")
        context = types.ReferenceContext(include_declaration=True)
        references = types.ReferenceParams(context, file, use)
        assert len(await client.text_document_references_async(references) or ()) == 2
        symbols = await client.text_document_document_symbol_async(types.DocumentSymbolParams(file))
        assert [each.name for each in symbols or ()] == ["@first", "@second"]
        at = position(MODULE, '"quantized.clamp', 11)
        completion = await client.text_document_completion_async(types.CompletionParams(file, at))
        assert isinstance(completion, list | tuple) and "quantized.clamp" in [each.label for each in completion]
        rename = await client.text_document_rename_async(types.RenameParams(file, use, "clamped"))
        assert rename is not None and rename.changes is not None and len(rename.changes[_URI]) == 2
        with pytest.raises(JsonRpcException, match="HB0813"):
            await client.text_document_rename_async(types.RenameParams(file, use, "%0"))
        client.text_document_did_close(types.DidCloseTextDocumentParams(file))
        assert not (await editor.report()).diagnostics
        assert await client.text_document_hover_async(types.HoverParams(file, use)) is None

    found = talk(conversation)
    assert found.server_info is not None and found.server_info.name == "hbir-lsp"
    assert found.capabilities.position_encoding == "utf-16"


def test_what_is_refused_is_answered_and_not_logged() -> None:
    async def conversation(editor: _Editor) -> None:
        await editor.report()
        client, file, use = editor.client, editor.file, position(MODULE, "(%1)", 1)
        for name in ("%0", "no name"):
            with pytest.raises(JsonRpcException, match="HB0813"):
                await client.text_document_rename_async(types.RenameParams(file, use, name))
        for line in (-1, "one"):
            nowhere = types.Position(0, 0)
            object.__setattr__(nowhere, "line", line)  # the client itself would refuse it
            asked = client.text_document_hover_async(types.HoverParams(file, nowhere))
            with pytest.raises(JsonRpcException, match="textDocument/hover") as caught:
                await asyncio.wait_for(asked, 30)
            assert caught.value.code == -32602, "invalid parameters"
        assert await client.text_document_hover_async(types.HoverParams(file, use)) is not None

    talk(conversation)


def test_without_the_library_one_line_tells_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    result = CliRunner().invoke(main, ["--stdio"])
    assert result.exit_code == 1 and "HB0824" in result.stderr and "hbir[lsp]" in result.stderr


def test_help_tells_how_editors_start_it() -> None:
    text = CliRunner().invoke(main, ["--help"]).stdout
    assert "vim.lsp.enable('hbir')" in text and '"glspc.server.command": "hbir-lsp"' in text
