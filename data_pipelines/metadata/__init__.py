"""Parses metadata of recordings: ages, sexes, origins, codes and missing values."""
