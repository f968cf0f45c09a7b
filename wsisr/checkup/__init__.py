"""Looking before building: is this machine fit, what is this slide, how fast is it read here."""
