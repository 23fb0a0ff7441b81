"""Reads what sources say of a recording beside its samples: ages, sexes, origins, codes and missing values."""
