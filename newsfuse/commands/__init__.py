"""The commands of `newsfuse`, by what they are about. What a command calls is imported when it runs."""
