"""One thin file a subcommand: flags in, one library call, rows out."""

COMMANDS: tuple = ()
