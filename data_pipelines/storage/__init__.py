"""Stores of signals by record number: ArrayRecord shards, packed copies, several as one."""
