"""`newsfuse doctor`: what is right and what is wrong with a project, before a stage finds out. It only looks."""
