"""`newsfuse report`: what was run and what came of it, on one page to show to somebody."""
