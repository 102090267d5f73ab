"""One thin file a subcommand: flags in, one library call, rows out."""

from vtc.commands.check_data import check_data

COMMANDS: tuple = (check_data,)
