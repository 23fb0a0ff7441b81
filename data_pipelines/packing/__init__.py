"""Makes packed copies of data sets, on the same disk or on another."""
