"""Changes the world: launches, stops, tells."""
