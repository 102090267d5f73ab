"""Commands of vtc one after the other in one process, for a launcher of several processes.

The first argument is a JSON list of commands, each a list of arguments.
"""

import json
import sys

from vtc import cli

for command in json.loads(sys.argv[1]):
    try:
        cli.run(command)
    except SystemExit as end:
        if end.code:
            raise
