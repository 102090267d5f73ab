"""The `vtc` command: the root group, and how failures become exit codes."""

import os
import sys

import click

from vtc import __version__
from vtc.commands import COMMANDS
from vtc.errors import VtcError

EPILOG = """\b
Example:
  vtc recommend --flops 3e12 --q 50

Exit codes: 0 done; 1 failed; 2 usage or bad input; 3 ran, but there is no
trustworthy answer; 130 interrupted."""


@click.group(
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
    ctx.obj = {"debug": debug}


def run(argv: list[str] | None = None) -> None:
    """Run vtc and exit: one line on stderr for a failure the user can act on, no traceback."""
    arguments = sys.argv[1:] if argv is None else argv
    debug = "--debug" in arguments
    try:
        code = main.main(args=arguments, prog_name="vtc", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        code = 130
    except VtcError as error:
        if debug:
            raise
        click.echo(f"Error: {' '.join(str(error).split())}", err=True)
        code = error.exit_code
    except BrokenPipeError:
        # The reader closed the pipe (`| head`): not a failure; keep Python from complaining again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        if debug:
            raise
        where = f": {error.filename}" if error.filename else ""
        click.echo(f"Error: {error.strerror or error}{where}", err=True)
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    run()
