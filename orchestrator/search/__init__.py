"""Where further trials come from while a study runs: samplers, and seeds that are given where they decide."""
