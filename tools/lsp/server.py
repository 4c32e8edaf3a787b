"""The protocol around a `Document`: positions in and out, and checks that run beside the editor's questions."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, cast

from lsprotocol import types
from pygls.exceptions import JsonRpcException, JsonRpcInvalidParams
from pygls.lsp.server import LanguageServer
from pygls.protocol import LanguageServerProtocol

from hbir.errors import HbError
from tools.lsp.checks import Problem
from tools.lsp.describe import Entry
from tools.lsp.document import Document
from tools.lsp.positions import Span

__all__ = ["build_server"]

_PAUSE = 0.15
"""Seconds without a keystroke after which a text is checked."""
_KINDS = {
    "function": types.SymbolKind.Function,
    "layer": types.SymbolKind.Module,
    "operation": types.SymbolKind.Operator,
}


def _version() -> str:
    try:
        return version("hbir")
    except PackageNotFoundError:
        return "0"


def _is_told(record: logging.LogRecord) -> bool:
    """Whether stderr is to show what pygls reports: not what an editor asked for and was refused, for it is answered."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, JsonRpcInvalidParams) and not record.getMessage().startswith("Unable to deserialize")


class _Protocol(LanguageServerProtocol):
    """The protocol; a request that is malformed, such as one about line -1, is answered with an error, too."""

    def structure_message(self, data: dict[str, Any]) -> Any:
        """A message as an object; None for one that was answered here."""
        try:
            return super().structure_message(data)
        except JsonRpcException as error:
            if "id" not in data or "method" not in data:
                raise
            refusal = JsonRpcInvalidParams(message=f"{data['method']} has parameters that it cannot have: {error}")
            self._send_response(cast(int, data["id"]), error=refusal.to_response_error())
            return None

    def handle_message(self, message: Any) -> None:
        """Answer a message that was not answered yet."""
        if message is not None:
            super().handle_message(message)


class _State:
    """The open documents and the checks that wait or run."""

    def __init__(self, server: LanguageServer) -> None:
        self.server = server
        self.documents: dict[str, Document] = {}
        self.checks: set[asyncio.Task[None]] = set()
        self._one = asyncio.Lock()

    def open(self, uri: str, text: str, number: int) -> None:
        encoding = str(getattr(self.server.workspace.position_encoding, "value", "utf-16"))
        self.documents[uri] = Document(text, number, encoding=encoding)
        self.schedule(uri, 0)

    def change(self, uri: str, changes: Sequence[types.TextDocumentContentChangeEvent], number: int) -> None:
        document = self.documents[uri]
        for change in changes:
            text = change.text
            if isinstance(change, types.TextDocumentContentChangePartial):
                start, end = change.range.start, change.range.end
                lines = document.lines
                text = lines.edited((start.line, start.character), (end.line, end.character), text)
            document = document.successor(text, number)
        self.documents[uri] = document
        self.schedule(uri, _PAUSE)

    def close(self, uri: str) -> None:
        self.documents.pop(uri, None)
        self.server.text_document_publish_diagnostics(types.PublishDiagnosticsParams(uri, []))

    def schedule(self, uri: str, pause: float) -> None:
        check = asyncio.get_running_loop().create_task(self.check(uri, self.documents[uri], pause))
        self.checks.add(check)  # the loop itself holds its tasks only weakly
        check.add_done_callback(self.checks.discard)

    async def check(self, uri: str, document: Document, pause: float) -> None:
        """Check a version that is still the newest after a pause, and report if it is when the check is done."""

        def wanted() -> bool:
            return self.documents.get(uri) is document

        await asyncio.sleep(pause)
        async with self._one:  # versions share a checker, which takes one text at a time
            if not wanted():
                return
            problems = await asyncio.get_running_loop().run_in_executor(None, _problems, document, wanted)
        if wanted():
            found = [_diagnostic(document, each) for each in problems]
            report = types.PublishDiagnosticsParams(uri, found, version=document.version)
            self.server.text_document_publish_diagnostics(report)

    def at(self, file: types.TextDocumentIdentifier, position: types.Position) -> tuple[Document, int] | None:
        document = self.documents.get(file.uri)
        return (document, document.lines.offset(position.line, position.character)) if document is not None else None


def _problems(document: Document, wanted: Callable[[], bool]) -> list[Problem]:
    # Nothing of what a check builds is a cycle: collecting meanwhile costs a fifth of the time.
    gc.disable()
    try:
        return document.check(wanted)
    finally:
        gc.enable()


def _range(document: Document, span: Span) -> types.Range:
    start, end = document.lines.position(span.start), document.lines.position(span.end)
    return types.Range(types.Position(*start), types.Position(*end))


def _diagnostic(document: Document, problem: Problem) -> types.Diagnostic:
    severity = types.DiagnosticSeverity.Error
    return types.Diagnostic(_range(document, problem.span), problem.message, severity, problem.code, source="hbir")


def _symbol(document: Document, entry: Entry) -> types.DocumentSymbol:
    return types.DocumentSymbol(
        name=entry.name or "?",
        kind=_KINDS[entry.kind],
        range=_range(document, entry.span),
        selection_range=_range(document, entry.selection),
        detail=entry.detail,
        children=[_symbol(document, each) for each in entry.children],
    )


def build_server() -> LanguageServer:
    """A server that speaks the protocol; `start_io()` runs it."""
    logging.getLogger("pygls.protocol.json_rpc").addFilter(_is_told)
    server = LanguageServer("hbir-lsp", _version(), protocol_cls=_Protocol)
    state = _State(server)
    _add_synchronisation(server, state)
    _add_navigation(server, state)
    _add_editing(server, state)
    return server


def _add_synchronisation(server: LanguageServer, state: _State) -> None:
    @server.feature(types.TEXT_DOCUMENT_DID_OPEN)
    async def _open(params: types.DidOpenTextDocumentParams) -> None:  # pyright: ignore[reportUnusedFunction]
        item = params.text_document
        state.open(item.uri, item.text, item.version)

    @server.feature(types.TEXT_DOCUMENT_DID_CHANGE)
    async def _change(params: types.DidChangeTextDocumentParams) -> None:  # pyright: ignore[reportUnusedFunction]
        state.change(params.text_document.uri, params.content_changes, params.text_document.version)

    @server.feature(types.TEXT_DOCUMENT_DID_CLOSE)
    async def _close(params: types.DidCloseTextDocumentParams) -> None:  # pyright: ignore[reportUnusedFunction]
        state.close(params.text_document.uri)


def _add_navigation(server: LanguageServer, state: _State) -> None:
    @server.feature(types.TEXT_DOCUMENT_HOVER)
    def _hover(params: types.HoverParams) -> types.Hover | None:  # pyright: ignore[reportUnusedFunction]
        place = state.at(params.text_document, params.position)
        found = place[0].hover(place[1]) if place is not None else None
        if place is None or found is None:
            return None
        content = types.MarkupContent(types.MarkupKind.Markdown, found[1])
        return types.Hover(content, _range(place[0], found[0]))

    @server.feature(types.TEXT_DOCUMENT_DEFINITION)
    def _definition(params: types.DefinitionParams) -> types.Location | None:  # pyright: ignore[reportUnusedFunction]
        place = state.at(params.text_document, params.position)
        span = place[0].definition(place[1]) if place is not None else None
        if place is None or span is None:
            return None
        return types.Location(params.text_document.uri, _range(place[0], span))

    @server.feature(types.TEXT_DOCUMENT_REFERENCES)
    def _references(params: types.ReferenceParams) -> list[types.Location]:  # pyright: ignore[reportUnusedFunction]
        place = state.at(params.text_document, params.position)
        if place is None:
            return []
        spans = place[0].references(place[1], definition=params.context.include_declaration)
        return [types.Location(params.text_document.uri, _range(place[0], span)) for span in spans]

    @server.feature(types.TEXT_DOCUMENT_DOCUMENT_HIGHLIGHT)
    def _highlight(params: types.DocumentHighlightParams) -> list[types.DocumentHighlight]:  # pyright: ignore[reportUnusedFunction]
        place = state.at(params.text_document, params.position)
        spans = place[0].references(place[1]) if place is not None else []
        return [types.DocumentHighlight(_range(place[0], span)) for span in spans if place is not None]

    @server.feature(types.TEXT_DOCUMENT_DOCUMENT_SYMBOL)
    @server.thread()
    def _symbols(params: types.DocumentSymbolParams) -> list[types.DocumentSymbol]:  # pyright: ignore[reportUnusedFunction]
        document = state.documents.get(params.text_document.uri)
        return [_symbol(document, each) for each in document.outline()] if document is not None else []


def _add_editing(server: LanguageServer, state: _State) -> None:
    options = types.CompletionOptions(trigger_characters=['"', ".", "%"])

    @server.feature(types.TEXT_DOCUMENT_COMPLETION, options)
    def _complete(params: types.CompletionParams) -> list[types.CompletionItem]:  # pyright: ignore[reportUnusedFunction]
        place = state.at(params.text_document, params.position)
        if place is None:
            return []
        kinds = {"operation": types.CompletionItemKind.Function, "value": types.CompletionItemKind.Variable}
        return [
            types.CompletionItem(
                each.name,
                kind=kinds.get(each.kind),
                documentation=types.MarkupContent(types.MarkupKind.Markdown, each.page) if each.page else None,
                text_edit=types.TextEdit(_range(place[0], each.span), each.name),
            )
            for each in place[0].complete(place[1])
        ]

    @server.feature(types.TEXT_DOCUMENT_PREPARE_RENAME)
    def _prepare(params: types.PrepareRenameParams) -> types.Range | None:  # pyright: ignore[reportUnusedFunction]
        place = state.at(params.text_document, params.position)
        one = place[0].renamable(place[1]) if place is not None else None
        return _range(place[0], one.span) if place is not None and one is not None else None

    @server.feature(types.TEXT_DOCUMENT_RENAME, types.RenameOptions(prepare_provider=True))
    def _rename(params: types.RenameParams) -> types.WorkspaceEdit | None:  # pyright: ignore[reportUnusedFunction]
        place = state.at(params.text_document, params.position)
        if place is None:
            return None
        try:
            edits = place[0].rename(place[1], params.new_name)
        except HbError as error:
            raise JsonRpcInvalidParams(message=str(error)) from error
        changes = [types.TextEdit(_range(place[0], span), name) for span, name in edits]
        return types.WorkspaceEdit(changes={params.text_document.uri: changes})
