"""A whole epoch over distinct recordings, killed and resumed, with a count of how often each was read."""
