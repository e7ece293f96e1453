"""Tests of `microtome/dynamics`."""
