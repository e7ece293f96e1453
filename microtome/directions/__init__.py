"""Directions that say something, and directions that do something: probes, contrasts, erasure, latent knowledge."""
