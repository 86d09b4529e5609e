"""The command line: parse, one call, print."""

from ssl_tilegen.cli.app import main

__all__ = ["main"]
