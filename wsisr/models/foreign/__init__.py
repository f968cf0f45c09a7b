"""Weights of other programs: their containers, their layouts, and the way in.

`containers` finds the parts of a file, `layouts` knows whose names those are and what they say
about the network, `convolutional`, `transformers` and `implicit` hold one layout each, `ranges`
decides what values a network was trained on where its file does not say, and
`wsisr.models.importing` builds the model.
"""
