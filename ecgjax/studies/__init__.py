"""Studies: models trained and compared on one task, on few labels, over folds, or arm by arm."""
