"""The command line: `tierproxy serve | check | schema | restore | archive ls|verify|cat|export`."""

from tierproxy.cli.main import main

__all__ = ["main"]
