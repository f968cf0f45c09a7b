"""`python -m wsisr`: the same as `wsisr`."""

import runpy

# By name: the library does not know its command line.
runpy.run_module("wsisr_cli", run_name="__main__", alter_sys=True)
