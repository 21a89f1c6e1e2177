"""Where the next trials come from: the cells of a grid, or random draws from its space."""
