"""The command line: `tierproxy serve | check | schema | archive ls|verify|cat`."""

from tierproxy.cli.main import main

__all__ = ["main"]
