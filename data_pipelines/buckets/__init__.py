"""Folders in buckets of object stores: their addresses, their files, what goes wrong there, and local copies."""
