"""The `vtc` command: the root group, and how failures become exit codes."""

import os
import re
import signal
import sys
import traceback

import click
from click.core import ParameterSource

from vtc import __version__
from vtc.commands import COMMANDS
from vtc.errors import VtcError, naming_stdout

EPILOG = """\b
Example:
  vtc recommend --flops 3e12 --q 50

-q, -v and --debug may also stand behind the command.

Exit codes: 0 done; 1 failed; 2 usage or bad input; 3 ran, but there is no
trustworthy answer; 130, 143 interrupted."""


_GLOBAL = ("-q", "--quiet", "-v", "--verbose", "--debug")
"""Flags of every command: they may stand before its name or behind it."""


class _InOrder(click.Group):
    """A group that lists its commands as given, in the order in which data flows."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=_InOrder,
    commands={command.name or "": command for command in COMMANDS},
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EPILOG,
)
@click.version_option(__version__, "-V", "--version", message="vtc %(version)s")
@click.option("--debug", is_flag=True, help="Show the Python traceback of a failure.")
@click.option("-q", "--quiet", is_flag=True, help="No words or progress on stderr, only failures.")
@click.option("-v", "--verbose", is_flag=True, help="More words on stderr.")
@click.pass_context
def main(ctx: click.Context, debug: bool, quiet: bool, verbose: bool) -> None:
    """Measure, fit and choose the visual tokens and the LLM size of a vision-language model.

    Commands are steps that meet only through tables and folders on disk:

    \b
      lab -> check-data -> encode -> train-projector -> finetune
          -> eval -> score -> fit -> plot -> recommend

    Data goes to stdout, words to stderr. `-` is stdin or stdout.
    """
    from vtc import console

    console.set_verbosity(-1 if quiet else int(verbose))
    if not verbose:
        # Read by the libraries when they load: their bars and notes are not ours to show.
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    ctx.obj = {"debug": debug}


def run(argv: list[str] | None = None) -> None:
    """Run vtc and exit: one line on stderr for a failure the user can act on, no traceback."""
    arguments = _global_first(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    # As Ctrl-C: half-written outputs are taken away. Schedulers and `kill` send this one.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = main.main(args=arguments, prog_name="vtc", standalone_mode=False)
        if sys.stdout:
            with naming_stdout():
                sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        code = error.exit_code
    except click.UsageError as error:
        message = _file_of(error) + error.format_message() + _where_help_is(error)
        code = _fail(message, error.exit_code, debug)
    except click.ClickException as error:
        code = _fail(error.format_message(), error.exit_code, debug)
    except (click.Abort, KeyboardInterrupt):
        code = _fail("interrupted", 130, debug)
    except VtcError as error:
        code = _fail(str(error) + _how_rows_count(str(error)), error.exit_code, debug)
    except BrokenPipeError:
        # The reader closed the pipe (`| head`): not a failure; keep Python from complaining again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        code = _fail(f"{error.strerror or error}{where}", 1, debug)
    sys.exit(code if isinstance(code, int) else 0)


def _global_first(arguments: list[str]) -> list[str]:
    """The arguments with the flags of all commands in front, where click looks for them."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    flags = [word for word in arguments[:end] if word in _GLOBAL]
    return [*flags, *(word for word in arguments[:end] if word not in _GLOBAL), *arguments[end:]]


def _fail(message: str, code: int, debug: bool) -> int:
    """Say what failed in one line on stderr, after the traceback if asked; returns the code."""
    if debug:
        traceback.print_exc()
    click.echo(f"Error: {' '.join(message.split())}", err=True)
    return code


def _where_help_is(error: click.UsageError) -> str:
    return f" (see {error.ctx.command_path} -h)" if error.ctx else ""


def _file_of(error: click.UsageError) -> str:
    """The file of settings that a bad value is from, before the message; nothing for a flag's."""
    name = getattr(getattr(error, "param", None), "name", None)
    if not (error.ctx and name):
        return ""
    source = error.ctx.get_parameter_source(name)
    file = error.ctx.meta.get("vtc.config")
    return f"--config {file}: " if file and source is ParameterSource.DEFAULT_MAP else ""


def _how_rows_count(message: str) -> str:
    """What a row's number in a message means: an editor counts lines, from 1 and with a header."""
    return " (rows of data count from 0)" if re.search(r"\brow \d", message) else ""


if __name__ == "__main__":
    run()
