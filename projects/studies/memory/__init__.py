"""Study of what memory is for: plain detector, cached features, one training per row, counterfactual tests, a table."""
