"""A new plugin: what `newsfuse new` writes, and out of which templates."""
