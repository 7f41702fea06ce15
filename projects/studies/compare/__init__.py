"""Study that compares the fusions: one row a design, trained alike, with its cost, its break-even and what others published."""
