"""`python -m tierproxy` is `tierproxy`."""

from tierproxy.cli import main

if __name__ == "__main__":
    main(prog_name="tierproxy")
