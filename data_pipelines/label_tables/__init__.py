"""Tables of patients and labels beside a folder of recordings."""
