"""The tool: ``logstore VERB URL``, one file per verb.

``VERBS`` names each verb with its one line of help; the verb itself is ``command`` in the module
of its name, imported when it runs. So ``logstore --help`` imports no verb.

Exit status: 0 fine, 1 findings (``check`` and its like), 2 could not run, 130 interrupted.
An error raised on purpose (``LogStoreError``) is one line on stderr, never a traceback.
"""

from __future__ import annotations

import importlib
import keyword

import click

from logstore.errors import LogStoreError
from projections.words import on_one_line

__all__ = ["VERBS", "CouldNotRun", "main"]

VERBS: dict[str, str] = {
    "doctor": "see whether store, log and clock are fit",
    "status": "say what the log holds, what is wrong with it, and what to do",
    "append": "store events that stand on stdin as lines of JSON (writes)",
    "cat": "print what is stored, in order",
    "tail": "print what is stored, then what comes",
    "check": "verify every object, list all damage",
    "seal": "end sessions whose writers are gone (writes)",
    "snapshot": "write a snapshot of a projection (writes)",
    "snapshots": "list snapshots and registered projections",
    "gc": "retire history, delete garbage (writes, deletes)",
    "archive": "pack old history into a few objects (writes)",
    "keep": "look after a log for ever: the daemon (writes, deletes)",
    "diff": "say which rows changed between two moments",
    "export": "write events, or rows of a projection, into a file",
    "import": "append what was exported, each event once (writes)",
    "copy": "back up a log, or restore it (writes to the copy)",
    "key": "make a key to encrypt a store with, or to sign with (writes a file)",
    "policy": "print the IAM policy that confines a process to its part",
    "console": "show a log in a browser, as it moves",
    "demo": "watch writers, a kill -9 and readers on one store (writes)",
}
"""Each verb, in the order that ``--help`` shows them, and what it does."""


class CouldNotRun(click.ClickException):
    """Print one line, exit with status 2."""

    exit_code = 2

    def __init__(self, error: LogStoreError) -> None:
        super().__init__(on_one_line(f"{type(error).__name__}: {error}"))


class Verbs(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every verb, for shell completion. Imports none."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb."""
        if cmd_name not in VERBS:
            return None
        module = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name
        command = importlib.import_module(f"{__name__}.{module}").command
        assert isinstance(command, click.Command), cmd_name
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of verbs from ``VERBS``. Imports none."""
        if VERBS:
            with formatter.section("Verbs"):
                formatter.write_dl(list(VERBS.items()))

    def invoke(self, ctx: click.Context) -> object:
        """Run the verb; what stops it becomes one line and an exit status that does not mean "findings"."""
        try:
            return super().invoke(ctx)
        except LogStoreError as error:
            raise CouldNotRun(error) from error
        except click.ClickException as error:
            error.show()
            ctx.exit(2)
        except (KeyboardInterrupt, click.Abort):
            click.echo(err=True)  # the terminal stands after ^C
            ctx.exit(130)


@click.group(cls=Verbs, subcommand_metavar="VERB URL [OPTIONS]", context_settings={"max_content_width": 100})
@click.version_option(package_name="logstore", message="%(prog)s %(version)s")
def main() -> None:
    """Look into, check and look after a log in a directory or an object store.

    URL is file:///directory or s3://bucket/prefix. Verbs only read, unless their name says otherwise.
    """
