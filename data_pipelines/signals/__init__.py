"""Turns a recording's samples into the stored signal: checks, filters, window and recipe."""
