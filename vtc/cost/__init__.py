"""Inference cost as arithmetic: no torch."""
