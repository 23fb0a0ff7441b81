"""Studies that train and compare models: on one task, with few labels, over folds, or between arms of an ablation."""
