"""Study of which frames a full working memory should keep, on a drive that stops and turns; no training."""
