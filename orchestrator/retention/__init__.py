"""What stays of a results root: which study wants what, and how the rest goes."""
