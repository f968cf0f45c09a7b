"""The command line of wsisr: one thin file per command, no logic."""
