"""Builders of data sets: each reads one published layout, or one kind of folder, as a source of records."""
