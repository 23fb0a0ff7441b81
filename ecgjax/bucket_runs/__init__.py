"""Runs whose workdir lies in a bucket: they write to a local copy, which is uploaded while they train."""
