"""Finds, recognises and reads the files of a source."""
