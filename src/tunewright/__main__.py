"""`python -m tunewright`."""

from tunewright.cli import entry

entry()
