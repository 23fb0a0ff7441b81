"""An ablation: its arms and runs, what they are judged on, and how far each is."""
