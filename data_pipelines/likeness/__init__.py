"""Which records of a data set are alike: vectors of records, their nearest neighbours, and how far labels agree."""
