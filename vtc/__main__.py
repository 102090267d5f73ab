"""`python -m vtc`."""

from vtc.cli import run

run()
