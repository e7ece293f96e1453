"""Components found in weights: a network's parameters as a sum of parts, few of which matter on any one input."""
