"""Looking, not building: is this machine fit, what is this slide, how fast is it read here, does a
store hold what its manifest promises, and a folder what its publisher lists."""
