"""Real crashes on the local store: death between any two calls to the system, power cuts, and disks that refuse."""
