"""The frame of the tool: verbs are imported late, errors are one line, exit statuses mean what they say."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import click
import pytest
from click.testing import CliRunner, Result

from logstore.errors import Corrupt
from projections import cli


def run(monkeypatch: pytest.MonkeyPatch, outcome: BaseException | int | None) -> Result:
    """Run a verb that raises or exits as told."""

    @click.command()
    @click.argument("url")
    @click.pass_context
    def command(ctx: click.Context, url: str) -> None:
        click.echo(f"looking at {url}")
        if isinstance(outcome, BaseException):
            raise outcome
        ctx.exit(outcome or 0)

    module = ModuleType("projections.cli.lambda_")
    monkeypatch.setattr(module, "command", command, raising=False)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(cli.VERBS, "lambda", "do as told")
    return CliRunner().invoke(cli.main, ["lambda", "memory://"])


def test_a_verb_is_the_command_of_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """A verb's module is found by its name, a Python keyword with an underscore."""
    result = run(monkeypatch, None)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "looking at memory://\n", "")


def test_findings_are_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """A verb's own exit status is passed on."""
    assert run(monkeypatch, 1).exit_code == 1


@pytest.mark.parametrize(
    ("outcome", "status", "stderr"),
    [
        (Corrupt("checksum differs key=log/w/7"), 2, "Error: Corrupt: checksum differs key=log/w/7\n"),
        (click.ClickException("no such file"), 2, "Error: no such file\n"),
        (KeyboardInterrupt(), 130, "\n"),
    ],
)
def test_what_stops_a_verb_is_one_line(
    monkeypatch: pytest.MonkeyPatch, outcome: BaseException, status: int, stderr: str
) -> None:
    """Errors raised on purpose and interruptions print no traceback, and none has the status of findings."""
    result = run(monkeypatch, outcome)
    assert (result.exit_code, result.stderr) == (status, stderr)


def test_our_own_mistakes_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error nobody raised on purpose is a bug, and is not dressed up."""
    assert isinstance(run(monkeypatch, ZeroDivisionError()).exception, ZeroDivisionError)


def test_unknown_verb_is_status_2() -> None:
    """A verb that does not exist is a usage error."""
    result = CliRunner().invoke(cli.main, ["frobnicate"])
    assert result.exit_code == 2
    assert "frobnicate" in result.stderr


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_help(verb: str) -> None:
    """Every verb in the table can be imported and explains itself."""
    result = CliRunner().invoke(cli.main, [verb, "--help"])
    assert result.exit_code == 0, result.output


def test_help_imports_no_verb() -> None:
    """--help shows every verb from the table and imports none of them, no view, nor any store's client."""
    script = (
        "import sys\n"
        "from projections import cli\n"
        "cli.VERBS['nowhere'] = 'a verb without a module'\n"
        "cli.main(['--help'], standalone_mode=False)\n"
        "print(sorted(m for m in sys.modules if m.startswith('projections.cli.')"
        " or m in ('aioboto3', 'botocore', 'projections.view', 'logstore.survey')))\n"
    )
    output = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert "a verb without a module" in output
    assert output.endswith("[]\n")


def test_version_is_the_packages() -> None:
    """--version names the tool and the installed version."""
    result = CliRunner().invoke(cli.main, ["--version"], prog_name="logstore")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("logstore ")
