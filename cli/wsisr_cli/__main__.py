"""`python -m wsisr_cli`: the same as `wsisr`."""

from wsisr_cli.main import main

main()
