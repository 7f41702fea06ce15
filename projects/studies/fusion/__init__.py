"""Study of what cameras are for: LiDAR-only detector, stored features, one training per row, noise sweep, a table."""
