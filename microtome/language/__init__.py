"""Asking a language model: in process or at an address, kept, within a budget, and never twice the same."""
