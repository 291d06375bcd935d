"""`python -m sipserver` is the same as the `sipserver` command."""

from sipserver.cli.main import main

main()
