"""`shardmos`: finds the command and imports only that one; turns errors into one line and an exit code.

Exit codes: 0 done, 1 failed, 2 usage, 130 ended by Ctrl-C, 141 nobody read the output any more.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from shardmos.errors import ShardmosError, UsageError

# Typer brings click along, since 0.16 as its own copy: these are whichever it uses.
_ClickUsageError: Any = typer.BadParameter.__bases__[0]
_ClickException: Any = _ClickUsageError.__bases__[0]

# In the order of the help; the module of each defines a function of the command's name.
COMMANDS = {
    "flows": "flows", "run": "run", "up": "up", "push": "push", "ls": "ls", "rm": "rm", "rollback": "rollback",
    "stats": "stats", "events": "events", "nic": "nic", "doctor": "doctor",
}  # fmt: skip


class _Command(TyperCommand):
    """An option of several values counts once: of two pairs the first would be forgotten without a word."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for option in (each for each in self.params if each.nargs > 1):
            given = [arg for arg in args if arg.partition("=")[0] in option.opts]
            if len(given) > 1:
                raise UsageError(f"{option.opts[0]} can be given once; another coordinator takes another: --name")
        return super().parse_args(ctx, args)


class _Commands(TyperGroup):
    """Commands that are imported when they are asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [name for name, module in COMMANDS.items() if find_spec(f"shardmos.cli.{module}")]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.list_commands(ctx):
            return None
        member = getattr(import_module(f"shardmos.cli.{COMMANDS[cmd_name]}"), cmd_name)
        if isinstance(member, typer.Typer):
            command = typer.main.get_command(member)
        else:
            alone = typer.Typer(add_completion=False, rich_markup_mode=None)
            alone.command(cmd_name, cls=_Command)(member)
            command = typer.main.get_command(alone)
        command.name = cmd_name
        return command


app = typer.Typer(
    cls=_Commands,
    name="shardmos",
    help="Stateful middleboxes over captures and live traffic.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"shardmos {version('shardmos')}")
        except PackageNotFoundError:
            print("shardmos (not installed)")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Show the version."),
) -> None:
    pass


def main(arguments: list[str] | None = None) -> None:
    """The entry point: never returns, never shows a traceback for what the user can mend."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller: what is opened next would be taken for it
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # what the locale has no character for
    code = call(sys.argv[1:] if arguments is None else arguments)
    try:
        sys.stdout.flush()
    except OSError as error:
        code = _unwritten(error)
    sys.exit(code)


def call(arguments: list[str]) -> int:
    """Runs one command; its exit code."""
    command: Any = typer.main.get_command(app)
    arguments, program = split_program(arguments)
    try:
        with command.make_context("shardmos", arguments, obj=program) as context:
            command.invoke(context)
    except typer.Exit as end:
        return int(end.exit_code)
    except _ClickUsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message())
            return 2
        where = error.ctx.command_path if error.ctx is not None else "shardmos"
        return _fail(f"{' '.join(error.format_message().split())} (see {where} --help)", 2)
    except _ClickException as error:
        return _fail(" ".join(error.format_message().split()), 1)
    except UsageError as error:
        return _fail(str(error), 2)
    except ShardmosError as error:
        return _fail(str(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        return _quiet(130)
    except SystemExit:  # Rich's, where nobody reads
        return _quiet()
    except OSError as error:
        return _unwritten(error)
    except MemoryError:
        return _fail("out of memory; give a smaller --memory", 1)
    return 0


def split_program(arguments: list[str]) -> tuple[list[str], list[str]]:
    """With --mos, what follows "--" are the mOS program's arguments; commands find them as the context's `obj`."""
    if "--" not in arguments or "--mos" not in arguments[: arguments.index("--")]:
        return arguments, []
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def _unwritten(error: OSError) -> int:
    """Of what the system refuses only standard output is not told by who met it."""
    if isinstance(error, BrokenPipeError):
        return _quiet()
    what = error.filename or "standard output cannot be written"
    return _fail(f"{what}: {error.strerror or error}", 1)


def _fail(message: str, code: int) -> int:
    try:
        sys.stdout.flush()  # the rows before the error come first
    except OSError:
        _quiet()
    print(f"shardmos: {message}", file=sys.stderr)
    return code


def _quiet(code: int = 141) -> int:
    """Nobody reads standard output: what is still buffered for it goes nowhere."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code
