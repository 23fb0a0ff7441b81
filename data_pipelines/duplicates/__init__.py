"""Finds equal and nearly equal recordings by signatures, candidates and comparison."""
