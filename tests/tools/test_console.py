"""What all commands share: plain text off a terminal, bars on one, and names that cannot steer it."""

from __future__ import annotations

import os
import pty
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import backends
from hbir.errors import ConfigError
from tests.tools.small import configuration, write_config
from tools.console import Log, command_errors, print_lines, print_table
from tools.hb_compile import main

ROOT = Path(__file__).parents[2]


def test_tables_align_and_keep_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("T", ("name", "#count"), [("[bold]a[/bold]", 5), ("b" * 150, 12345)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "T"
    assert "[bold]a[/bold]" in lines[4] and lines[4].endswith("    5")
    assert "b" * 150 in lines[5] and lines[5].endswith("12345")
    assert all(line == line.rstrip() for line in lines)


def test_control_characters_are_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "a\x1b[2Jb\x9bc\x07\r"
    print_lines(hostile)
    print_table(hostile, (hostile,), [(hostile,)])
    with pytest.raises(SystemExit), command_errors():
        raise ConfigError(13, hostile, lever=hostile)
    captured = capsys.readouterr()
    assert not set("\x1b\x9b\x07\r") & set(captured.out + captured.err)


def test_system_errors_are_one_paragraph(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught, command_errors():
        Path("/none/such").read_text()
    assert caught.value.code == 1
    assert capsys.readouterr().err.startswith("HB0823 at /none/such: the system refused: No such file")


def test_a_fault_of_the_compiler_goes_to_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(backends, "compile", broken)
    result = CliRunner().invoke(main, ["-c", str(write_config(tmp_path / "c.yaml", configuration(tmp_path)))])
    assert result.exit_code == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("HB0899 at stage 'compile': internal error: ZeroDivisionError: planted")
    assert "Traceback" not in result.output
    log = (tmp_path / "out/hb_compile.log").read_text()
    assert "Traceback" in log and "*** ERROR-OCCUR-DURING compile ***" in log
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"hb_compile.log", "reproducer"}
    command = shlex.split((tmp_path / "out/reproducer/command.txt").read_text())
    assert command == ["hb_compile", "--core-num", "1", "-m", "module.bc", "--march", "nash-e"]
    monkeypatch.chdir(tmp_path / "out/reproducer")
    assert "ZeroDivisionError: planted" in CliRunner().invoke(main, command[1:]).stderr
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path / "out/reproducer")
    assert CliRunner().invoke(main, command[1:]).exit_code == 0


def test_a_reproducer_that_cannot_be_written_hides_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(backends, "compile", broken)
    config = write_config(tmp_path / "c.yaml", configuration(tmp_path))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "reproducer").write_text("in the way")
    result = CliRunner().invoke(main, ["-c", str(config)])
    assert "there is no reproducer: HB0801" in result.stderr
    assert result.stderr.splitlines()[-1].startswith(
        "HB0899 at stage 'compile': internal error: ZeroDivisionError: planted"
    )


def test_a_fault_without_a_log_is_seen() -> None:
    with pytest.raises(ZeroDivisionError), command_errors(Log()):
        raise ZeroDivisionError


def test_bars_appear_on_a_terminal_only(tmp_path: Path) -> None:
    path = write_config(tmp_path / "c.yaml", configuration(tmp_path))
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    environment.pop("NO_COLOR", None)
    command = [sys.executable, "-m", "tools.hb_compile", "-c", str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=follower, cwd=ROOT, env=environment)
    os.close(follower)
    shown = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # the other end is closed
            break
        shown += part
        if not part:
            break
    assert process.stdout is not None
    tables = process.stdout.read()
    assert process.wait(60) == 0
    for stage in (b"export", b"calibrate", b"convert", b"compile", b"evaluate", b"perf"):
        assert stage in shown
    assert b"100%" in shown and b"\x1b[" in shown
    assert b"\x1b" not in tables
