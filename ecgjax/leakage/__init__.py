"""The firewall between pretraining and evaluation: which records, or whose, an encoder has seen."""
