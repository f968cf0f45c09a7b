"""Weights of other programs: their containers, their layouts, and the way in.

`containers` finds the parts of a file, `layouts` knows whose names those are and what they say
about the network, `convolutional`, `transformers` and `implicit` hold one layout each, and
`wsisr.models.importing` builds the model.
"""
