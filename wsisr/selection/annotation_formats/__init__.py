"""One file per annotation format; all give `ParsedShape` in level-0 pixels."""
