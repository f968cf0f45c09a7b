"""Proof on a device: does all train, resume, evaluate and upscale on this card, and how fast?

`plan` says what is checked, in the order of what it tells; `checks` does one of them; `worker` is
the process they run in, which may die; `run` keeps it going, writes what is found and goes on where
it stopped; `table` puts it into words.
"""
