"""What sources say of a recording beside its samples: ages, sexes, origins, codes, and what counts as missing."""
