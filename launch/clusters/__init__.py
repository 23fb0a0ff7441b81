"""What clusters are given to start a run: batch scripts, manifests and commands, and what they restart after."""
